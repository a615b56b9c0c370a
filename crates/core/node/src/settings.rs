//! The user's settings: checked before they are applied, and stored as what differs from the defaults.

use partyline_model::{AppError, ErrorCode, Settings};
use partyline_wire::name::check_display_name;
use serde_json::{Map, Value};

use crate::{problem::party_error, turn_url::TurnUrl};

/// Settings that differ from the defaults, by their names in [`Settings`]. The others follow the defaults of the
/// process that starts the node.
pub(crate) type ChangedSettings = Map<String, Value>;

/// Combines the defaults with stored settings; `None` if those cannot be read.
pub(crate) fn restore(defaults: &Settings, changed: ChangedSettings) -> Option<Settings> {
    let Ok(Value::Object(mut all)) = serde_json::to_value(defaults) else { return None };
    all.extend(changed);
    serde_json::from_value(Value::Object(all)).ok()
}

/// Returns what differs from the defaults.
pub(crate) fn changed(defaults: &Settings, settings: &Settings) -> ChangedSettings {
    let object = |settings: &Settings| match serde_json::to_value(settings) {
        Ok(Value::Object(all)) => all,
        _ => Map::new(),
    };
    let defaults = object(defaults);
    object(settings).into_iter().filter(|(name, value)| defaults.get(name) != Some(value)).collect()
}

/// Checks settings that the user wants.
///
/// # Errors
/// The first one that is outside its limits.
pub(crate) fn check(settings: &Settings) -> Result<(), AppError> {
    settings.validate()?;
    if !settings.display_name.is_empty() {
        check_display_name(&settings.display_name).map_err(|error| party_error(&error.into()))?;
    }
    match settings.relays.iter().find(|relay| TurnUrl::parse(&relay.url).is_none()) {
        None => Ok(()),
        Some(relay) => Err(AppError::new(
            ErrorCode::InvalidInput,
            format!("{} is not the address of a relay.", relay.url),
            "Write turn:host:port, turn:host:port?transport=tcp or turns:host:port.",
        )),
    }
}

/// Checks the URL of a rendezvous server that the user confirms.
///
/// # Errors
/// It is none.
pub(crate) fn check_server(url: &str) -> Result<(), AppError> {
    Settings { servers: vec![url.to_owned()], ..Settings::default() }.validate()
}

#[cfg(test)]
mod tests {
    use partyline_model::Methods;

    use super::*;

    #[test]
    fn only_changed_settings_are_stored_and_others_follow_the_defaults() {
        let defaults = Settings { port: 5, servers: vec!["wss://a".into()], ..Settings::default() };
        let methods = Methods { spray: false, ..Methods::default() };
        let set = Settings { mtu: 1300, methods, ..defaults.clone() };
        let saved = changed(&defaults, &set);
        assert_eq!(saved.keys().collect::<Vec<_>>(), ["methods", "mtu"]);
        assert_eq!(restore(&defaults, saved.clone()), Some(set.clone()));
        let moved = Settings { port: 6, ..defaults };
        assert_eq!(restore(&moved, saved), Some(Settings { port: 6, ..set }));
    }

    #[test]
    fn damaged_settings_are_distinguished_from_none() {
        let bad = Map::from_iter([("mtu".to_owned(), Value::from("x"))]);
        assert_eq!(restore(&Settings::default(), bad), None);
        assert_eq!(restore(&Settings::default(), Map::new()), Some(Settings::default()));
    }

    #[test]
    fn settings_outside_their_limits_are_refused() {
        assert_eq!(check(&Settings::default()), Ok(()));
        let named = |name: &str| Settings { display_name: name.to_owned(), ..Settings::default() };
        assert!(check(&named("Ana")).is_ok() && check(&named(&"a".repeat(100))).is_err());
        let relay = |url: &str| partyline_model::RelaySetting {
            url: url.to_owned(),
            username: "ana".to_owned(),
            password: "secret".to_owned(),
        };
        let relays = |url| Settings { relays: vec![relay(url)], ..Settings::default() };
        assert!(
            check(&relays("turn:relay.example")).is_ok() && check(&relays("stun:relay.example")).is_err()
        );
    }
}
