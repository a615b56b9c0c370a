//! The name that is suggested to a new member.

/// Longest display name the engine takes, in characters.
const LONGEST: usize = 32;

/// What the system calls the user, or the computer; a name that the engine takes.
#[must_use]
pub fn own_name() -> String {
    let variables = ["SUDO_USER", "USER", "USERNAME", "LOGNAME", "COMPUTERNAME"];
    let named = variables.iter().filter_map(|variable| std::env::var(variable).ok());
    let host = std::fs::read_to_string("/etc/hostname").ok();
    let names =
        named.chain(host).map(|name| name.chars().filter(|letter| !letter.is_control()).collect::<String>());
    let short = |name: String| name.trim().chars().take(LONGEST).collect::<String>();
    names.map(short).find(|name| !name.is_empty() && name != "root").unwrap_or_else(|| "player".into())
}
