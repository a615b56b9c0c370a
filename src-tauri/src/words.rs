//! Texts outside the window: the tray's menu and notifications.

use crate::preferences::Language;

/// The texts of one language. `{}` stands for a name or a number.
#[derive(Debug)]
pub struct Words {
    pub open: &'static str,
    pub quit: &'static str,
    pub connect: &'static str,
    pub disconnect: &'static str,
    pub copy_invite: &'static str,
    pub show_party: &'static str,
    pub offline: &'static str,
    pub connecting: &'static str,
    pub direct: &'static str,
    pub relayed: &'static str,
    pub no_party: &'static str,
    pub off: &'static str,
    pub on: &'static str,
    pub trouble: &'static str,
    pub joined: &'static str,
    pub asks: &'static str,
    pub lost: &'static str,
    pub back: &'static str,
    pub engine_gone: &'static str,
    pub invite_copied: &'static str,
}

const ENGLISH: Words = Words {
    open: "Open Partyline",
    quit: "Quit",
    connect: "Connect",
    disconnect: "Disconnect",
    copy_invite: "Copy invite",
    show_party: "Show",
    offline: "offline",
    connecting: "connecting",
    direct: "direct",
    relayed: "relay",
    no_party: "No party yet",
    off: "Not connected",
    on: "Connected",
    trouble: "Needs attention",
    joined: "{} joined",
    asks: "{} would like to join",
    lost: "The connection was lost. Partyline keeps trying.",
    back: "Connected again.",
    engine_gone: "Partyline's service has stopped. Open Partyline to start it again.",
    invite_copied: "The invite is on the clipboard.",
};

const GERMAN: Words = Words {
    open: "Partyline öffnen",
    quit: "Beenden",
    connect: "Verbinden",
    disconnect: "Trennen",
    copy_invite: "Einladung kopieren",
    show_party: "Anzeigen",
    offline: "offline",
    connecting: "verbindet",
    direct: "direkt",
    relayed: "Relay",
    no_party: "Noch keine Party",
    off: "Nicht verbunden",
    on: "Verbunden",
    trouble: "Etwas stimmt nicht",
    joined: "{} ist dabei",
    asks: "{} möchte beitreten",
    lost: "Die Verbindung ist abgerissen. Partyline versucht es weiter.",
    back: "Wieder verbunden.",
    engine_gone: "Der Dienst von Partyline läuft nicht mehr. Öffne Partyline, um ihn wieder zu starten.",
    invite_copied: "Die Einladung ist in der Zwischenablage.",
};

const CHINESE: Words = Words {
    open: "打开 Partyline",
    quit: "退出",
    connect: "连接",
    disconnect: "断开",
    copy_invite: "复制邀请",
    show_party: "显示",
    offline: "离线",
    connecting: "连接中",
    direct: "直连",
    relayed: "中继",
    no_party: "还没有派对",
    off: "未连接",
    on: "已连接",
    trouble: "出现问题",
    joined: "{} 加入了",
    asks: "{} 想要加入",
    lost: "连接已断开，Partyline 正在重试。",
    back: "已重新连接。",
    engine_gone: "Partyline 服务已停止。打开 Partyline 即可重新启动。",
    invite_copied: "邀请已复制到剪贴板。",
};

/// The words of a language; the system's where that is wanted, and English where we lack it.
pub fn of(language: Language) -> &'static Words {
    match language {
        Language::En => &ENGLISH,
        Language::De => &GERMAN,
        Language::Zh => &CHINESE,
        Language::System => system(["LC_ALL", "LC_MESSAGES", "LANG"].map(|name| std::env::var(name).ok())),
    }
}

/// The first variable that is set decides, says setlocale(3).
fn system(variables: [Option<String>; 3]) -> &'static Words {
    let locale = variables.into_iter().flatten().find(|value| !value.is_empty()).unwrap_or_default();
    match locale.get(..2) {
        Some("de") => &GERMAN,
        Some("zh") => &CHINESE,
        _ => &ENGLISH,
    }
}

/// A sentence with its name filled in.
pub fn fill(sentence: &str, name: &str) -> String {
    sentence.replacen("{}", name, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_language_is_taken_where_we_have_it() {
        let of = |all: Option<&str>, lang: Option<&str>| {
            system([all.map(str::to_owned), None, lang.map(str::to_owned)]).quit
        };
        assert_eq!(of(None, Some("de_AT.UTF-8")), "Beenden");
        assert_eq!(of(Some("zh_CN"), Some("de_DE")), "退出");
        assert_eq!(of(Some(""), Some("de")), "Beenden");
        assert_eq!(of(None, Some("C")), "Quit");
        assert_eq!(of(None, None), "Quit");
    }

    #[test]
    fn every_language_has_a_place_for_the_name() {
        for words in [&ENGLISH, &GERMAN, &CHINESE] {
            assert!(fill(words.joined, "Anna").contains("Anna"));
            assert!(fill(words.asks, "Anna").contains("Anna"));
        }
    }
}
