//! What the user may decide: kept in the state as what differs from the defaults, applied as soon as it is said.

use std::time::Duration;

use partyline_model::{AppError, ErrorCode, Now, PartyId, Reply, Settings};
use partyline_wire::name::check_display_name;
use serde_json::{Map, Value};

use crate::{Node, io::Output, problem::party_error, relays::TurnUrl};

/// What was set, by the names in [`Settings`]. What is not in here follows the defaults of whoever starts the node.
pub(crate) type Chosen = Map<String, Value>;

/// The settings that result from defaults and what was set; `None` if that cannot be read.
pub(crate) fn restore(defaults: &Settings, chosen: Chosen) -> Option<Settings> {
    let Ok(Value::Object(mut all)) = serde_json::to_value(defaults) else { return None };
    all.extend(chosen);
    serde_json::from_value(Value::Object(all)).ok()
}

/// What differs from the defaults.
pub(crate) fn chosen(defaults: &Settings, settings: &Settings) -> Chosen {
    let object = |settings: &Settings| match serde_json::to_value(settings) {
        Ok(Value::Object(all)) => all,
        _ => Map::new(),
    };
    let defaults = object(defaults);
    object(settings).into_iter().filter(|(name, value)| defaults.get(name) != Some(value)).collect()
}

impl Node {
    /// What is set now, passwords included.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How paths are looked for with these settings.
    pub(crate) fn path_config(
        base: &partyline_paths::Config,
        settings: &Settings,
    ) -> partyline_paths::Config {
        partyline_paths::Config {
            direct: settings.direct,
            relay: settings.relay,
            methods: settings.methods,
            direct_timeout: Duration::from_secs(u64::from(settings.direct_timeout_s)),
            ..base.clone()
        }
    }

    /// Takes other settings, or refuses them all.
    pub(crate) fn configure(&mut self, now: Now, mut settings: Settings) -> Result<Reply, AppError> {
        settings.validate()?;
        if !settings.display_name.is_empty() {
            check_display_name(&settings.display_name).map_err(|error| party_error(&error.into()))?;
        }
        if let Some(relay) = settings.relays.iter().find(|relay| TurnUrl::parse(&relay.url).is_none()) {
            return Err(AppError::new(
                ErrorCode::InvalidInput,
                format!("{} is not the address of a relay.", relay.url),
                "Write turn:host:port, turn:host:port?transport=tcp or turns:host:port.",
            ));
        }
        settings.restore_passwords(&self.settings);
        if settings != self.settings {
            let renamed = settings.display_name != self.settings.display_name;
            self.settings = settings;
            if renamed {
                self.rename(now);
            }
            self.apply_settings(now);
            self.outputs.push_back(Output::Save);
        }
        Ok(Reply::Done)
    }

    /// Goes by the name that is set, in all parties. None set keeps what each party knows.
    fn rename(&mut self, now: Now) {
        let name = self.settings.display_name.as_str();
        for local in self.parties.values_mut().filter(|_| !name.is_empty()) {
            if local.membership.set_display_name(name).is_ok_and(|outcome| outcome.persist) {
                local.announce_soon(now.instant);
                local.beacon_soon(now.instant);
            }
        }
    }

    fn apply_settings(&mut self, now: Now) {
        self.relays.set_own(self.settings.relays.clone());
        for (host, port) in self.relays.unknown_hosts() {
            self.outputs.push_back(Output::Resolve { host, port });
        }
        self.paths.configure(now.instant, Self::path_config(&self.config.paths, &self.settings));
        self.apply_relays(now);
        self.netcheck.set_enabled(now.instant, self.settings.nat_detection);
        let parties: Vec<PartyId> = self.parties.keys().copied().collect();
        parties.into_iter().for_each(|party| self.sync_device(now, party));
        self.settle(now);
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::Methods;

    use super::*;

    #[test]
    fn what_was_set_wins_over_defaults_and_nothing_else_does() {
        let defaults = Settings { port: 5, servers: vec!["wss://a".into()], ..Settings::default() };
        let methods = Methods { spray: false, ..Methods::default() };
        let set = Settings { mtu: 1300, methods, ..defaults.clone() };
        let saved = chosen(&defaults, &set);
        assert_eq!(saved.keys().collect::<Vec<_>>(), ["methods", "mtu"]);
        assert_eq!(restore(&defaults, saved.clone()), Some(set.clone()));
        let moved = Settings { port: 6, ..defaults };
        assert_eq!(restore(&moved, saved), Some(Settings { port: 6, ..set }));
    }

    #[test]
    fn damaged_settings_are_told_from_none() {
        let bad = Map::from_iter([("mtu".to_owned(), Value::from("x"))]);
        assert_eq!(restore(&Settings::default(), bad), None);
        assert_eq!(restore(&Settings::default(), Map::new()), Some(Settings::default()));
    }
}
