//! The display name that is suggested to a new member.

/// The longest display name that the engine accepts, in characters.
const MAX_NAME_LEN: usize = 32;

/// Returns the name of the user, or of the computer, as the system knows it, shortened to what the engine accepts.
#[must_use]
pub fn own_name() -> String {
    let variables = ["SUDO_USER", "USER", "USERNAME", "LOGNAME", "COMPUTERNAME"];
    let named = variables.iter().filter_map(|variable| std::env::var(variable).ok());
    let host = std::fs::read_to_string("/etc/hostname").ok();
    let names =
        named.chain(host).map(|name| name.chars().filter(|letter| !letter.is_control()).collect::<String>());
    let short = |name: String| name.trim().chars().take(MAX_NAME_LEN).collect::<String>();
    names.map(short).find(|name| !name.is_empty() && name != "root").unwrap_or_else(|| "player".into())
}
