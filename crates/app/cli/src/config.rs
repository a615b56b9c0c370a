//! `partyline config`: what is set on this computer, and how to set it.

use partyline_model::{AppError, Command, ErrorCode, Reply, Settings};
use serde_json::{Value, json};

use crate::{
    arguments::{Config, ConfigChange},
    output::{Output, Tone},
    reach,
    reply::unexpected,
    table,
    text::clean,
};

/// What each setting means, in the order shown.
const MEANINGS: [(&str, &str); 21] = [
    ("display_name", "the name friends see, in all parties"),
    ("servers", "rendezvous servers for new parties"),
    ("relays", "relays of your own, each as URL,USER,PASSWORD"),
    ("nat_detection", "measure what the network does to connections"),
    ("port_mapping", "ask the router to open a port"),
    ("direct", "try direct connections"),
    ("relay", "use relay servers"),
    ("methods.lan", "connect over a shared local network"),
    ("methods.ipv6", "connect over IPv6"),
    ("methods.mapped", "connect to ports that routers opened"),
    ("methods.punch", "punch holes through NATs"),
    ("methods.predict", "predict the ports of NATs that change them"),
    ("methods.spray", "try many ports at once where nothing else helps"),
    ("methods.member_relay", "relay through another member where no direct path works"),
    ("serve_friends", "forward packets between friends that cannot reach each other"),
    ("lan_beacon", "announce this computer on local networks, sealed for its parties"),
    ("dht", "find friends by the BitTorrent DHT in parties without a server"),
    ("bootstrap", "nodes by which the DHT is found, as host:port, at most 8"),
    ("port", "UDP port all parties share; 0 lets the system choose"),
    ("direct_timeout_s", "seconds a new direct path is tried, 1 to 60"),
    ("mtu", "packet size of the parties' devices in bytes, 1280 to 1420"),
];

/// Shows or changes settings.
pub async fn run(options: Config, output: &Output) -> Result<(), AppError> {
    let controller = options.place.connect().await?;
    let mut settings = reach::state(&controller).await?.settings.clone();
    let Some(ConfigChange::Set { key, values }) = options.change else {
        output.answer(&settings, || lines(output, &settings).iter().for_each(|line| output.say(line)));
        return Ok(());
    };
    settings = changed(&settings, &key, &values)?;
    let moved = settings.port;
    let reply = controller.request(Command::Configure { settings: Box::new(settings) }).await?;
    let Reply::Done = reply else { return Err(unexpected(&reply)) };
    output.answer(&reply, || {
        output.say(&format!("Set {key}."));
        if key == "port" && moved != 0 {
            output.say("All connections are made again on the new port.");
        }
    });
    Ok(())
}

fn lines(output: &Output, settings: &Settings) -> Vec<String> {
    let all = json!(settings);
    let row = |(key, meaning): &(&str, &str)| {
        let value = at(&all, key).map_or_else(String::new, shown);
        vec![
            ((*key).to_owned(), Tone::Strong),
            (clean(&value), Tone::Plain),
            ((*meaning).to_owned(), Tone::Dim),
        ]
    };
    table::render(output, &["SETTING", "VALUE", "MEANING"], &MEANINGS.iter().map(row).collect::<Vec<_>>())
}

fn at<'a>(all: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(all, |value, name| value.get(name))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
        Value::String(text) if text.is_empty() => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "–".to_owned(),
        Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(" "),
        Value::Object(relay) => {
            let text = |name| relay.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            format!("{},{}", text("url"), text("username"))
        }
        other => other.to_string(),
    }
}

/// The settings with one of them changed.
fn changed(settings: &Settings, key: &str, values: &[String]) -> Result<Settings, AppError> {
    let mut all = json!(settings);
    let slot = MEANINGS
        .iter()
        .any(|(known, _)| *known == key)
        .then(|| key.split('.').try_fold(&mut all, |value, name| value.get_mut(name)))
        .flatten()
        .ok_or_else(|| invalid(format!("There is no setting {key}."), "`partyline config` lists them."))?;
    *slot = parsed(key, slot, values)?;
    serde_json::from_value(all)
        .map_err(|_| invalid(format!("That is no value for {key}."), "`partyline config` shows what is set."))
}

/// The values as what the setting holds now.
fn parsed(key: &str, now: &Value, values: &[String]) -> Result<Value, AppError> {
    if let Value::Array(_) = now {
        let list = values.iter().map(|value| if key == "relays" { relay(value) } else { Ok(json!(value)) });
        return list.collect::<Result<Vec<_>, _>>().map(Value::Array);
    }
    let [value] = values else {
        return Err(invalid(format!("{key} takes one value."), "Quote a value with spaces in it."));
    };
    match now {
        Value::Bool(_) => match value.as_str() {
            "on" | "true" | "yes" => Ok(Value::Bool(true)),
            "off" | "false" | "no" => Ok(Value::Bool(false)),
            _ => Err(invalid(format!("{key} is on or off, not {value}."), "Use on or off.")),
        },
        Value::Number(_) => value
            .parse::<u16>()
            .map(|number| json!(number))
            .map_err(|_| invalid(format!("{key} is a number, not {value}."), "Use 0 to 65535.")),
        _ => Ok(json!(value)),
    }
}

fn relay(value: &str) -> Result<Value, AppError> {
    let parts: Vec<&str> = value.splitn(3, ',').collect();
    let [url, username, password] = *parts.as_slice() else {
        return Err(invalid(format!("{value} is not a relay."), "Write URL,USER,PASSWORD."));
    };
    Ok(json!({ "url": url, "username": username, "password": password }))
}

fn invalid(what: String, hint: &str) -> AppError {
    AppError::new(ErrorCode::InvalidInput, what, hint)
}

#[cfg(test)]
mod tests {
    use partyline_model::{Methods, RelaySetting};

    use super::*;

    fn set(key: &str, values: &[&str]) -> Result<Settings, AppError> {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        changed(&Settings::default(), key, &values)
    }

    #[test]
    fn every_setting_has_its_line_and_no_other_has() {
        fn leaves(prefix: &str, value: &Value) -> Vec<String> {
            match value {
                Value::Object(all) => {
                    all.iter().flat_map(|(name, value)| leaves(&format!("{prefix}.{name}"), value)).collect()
                }
                _ => vec![prefix.trim_start_matches('.').to_owned()],
            }
        }
        let mut known = leaves("", &json!(Settings::default()));
        let mut shown = MEANINGS.map(|(key, _)| key.to_owned()).to_vec();
        known.sort();
        shown.sort();
        assert_eq!(known, shown);
        assert_eq!(lines(&Output::plain(), &Settings::default()).len(), MEANINGS.len() + 1);
    }

    #[test]
    fn values_become_what_the_setting_holds() {
        let usual = Settings::default;
        assert_eq!(set("port", &["51820"]), Ok(Settings { port: 51820, ..usual() }));
        assert_eq!(set("direct", &["off"]), Ok(Settings { direct: false, ..usual() }));
        let methods = Methods { spray: false, ..Methods::default() };
        assert_eq!(set("methods.spray", &["no"]), Ok(Settings { methods, ..usual() }));
        let servers = vec!["wss://a".to_owned(), "wss://b".to_owned()];
        assert_eq!(set("servers", &["wss://a", "wss://b"]), Ok(Settings { servers, ..usual() }));
        assert_eq!(set("servers", &[]), Ok(usual()));
        let relay = RelaySetting { url: "turn:a".into(), username: "ann".into(), password: "x,y".into() };
        assert_eq!(set("relays", &["turn:a,ann,x,y"]), Ok(Settings { relays: vec![relay], ..usual() }));
        for (key, values) in [
            ("ports", vec!["1"]),
            ("methods", vec!["on"]),
            ("port", vec!["70000"]),
            ("port", vec![]),
            ("direct", vec!["maybe"]),
            ("relays", vec!["turn:a"]),
        ] {
            assert_eq!(set(key, &values).unwrap_err().code, ErrorCode::InvalidInput, "{key} {values:?}");
        }
    }
}
