//! What members of a party may reach on this computer.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ServicePort;

/// How much members of a party reach without being asked for by this computer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum IncomingLevel {
    /// Nothing but answers, and what the user allows.
    Nothing,
    /// Everything except system services ([`ServicePort::system_service`]).
    #[default]
    Games,
    /// Everything, as in one room.
    Everything,
}

/// What the user decided about one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum PortRule {
    /// Members reach it, whatever the level says.
    Allow,
    /// Members do not reach it, whatever the level says.
    Block,
}

/// Whether members reach a port, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum PortAccess {
    /// Reachable at this level.
    Reachable,
    /// Not reachable at this level.
    BlockedByDefault,
    /// The user allowed it.
    AllowedByUser,
    /// The user blocked it.
    BlockedByUser,
}

impl PortAccess {
    /// Returns true if members reach the port.
    #[must_use]
    pub const fn is_reachable(self) -> bool {
        matches!(self, Self::Reachable | Self::AllowedByUser)
    }
}

/// What members of a party may reach on this computer: a level, and the user's own rules, which win over it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct IncomingPolicy {
    /// What holds for ports without a rule.
    pub level: IncomingLevel,
    /// The ports that the user allowed.
    pub allowed: BTreeSet<ServicePort>,
    /// The ports that the user blocked. A port in both lists is blocked.
    pub blocked: BTreeSet<ServicePort>,
}

impl IncomingPolicy {
    /// The rules that one policy may have.
    pub const MAX_RULES: usize = 256;

    /// Returns the policy of a level without rules.
    #[must_use]
    pub fn of(level: IncomingLevel) -> Self {
        Self { level, ..Self::default() }
    }

    /// Sets or removes the rule of a port. Returns false, and changes nothing, if that would be too many rules.
    pub fn set_rule(&mut self, port: ServicePort, rule: Option<PortRule>) -> bool {
        let is_new = !self.allowed.contains(&port) && !self.blocked.contains(&port);
        if rule.is_some() && is_new && self.allowed.len() + self.blocked.len() >= Self::MAX_RULES {
            return false;
        }
        self.allowed.remove(&port);
        self.blocked.remove(&port);
        match rule {
            Some(PortRule::Allow) => self.allowed.insert(port),
            Some(PortRule::Block) => self.blocked.insert(port),
            None => false,
        };
        true
    }

    /// Returns whether members reach a port, and why.
    #[must_use]
    pub fn access(&self, port: ServicePort) -> PortAccess {
        if self.blocked.contains(&port) {
            return PortAccess::BlockedByUser;
        }
        if self.allowed.contains(&port) {
            return PortAccess::AllowedByUser;
        }
        match self.level {
            IncomingLevel::Everything => PortAccess::Reachable,
            IncomingLevel::Games if port.system_service().is_none() => PortAccess::Reachable,
            IncomingLevel::Games | IncomingLevel::Nothing => PortAccess::BlockedByDefault,
        }
    }
}

/// A port of this computer that a program offers to members, or that the user has a rule for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct OfferedPort {
    /// The protocol and port.
    pub port: ServicePort,
    /// True if a program listens on it now.
    pub listening: bool,
    /// The program that listens, if the system tells.
    pub program: Option<String>,
    /// The system service that usually listens on this port.
    pub service: Option<String>,
    /// Whether members reach it, and why.
    pub access: PortAccess,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMB: ServicePort = ServicePort::tcp(445);
    const GAME: ServicePort = ServicePort::udp(27_015);

    #[test]
    fn levels_say_what_is_reachable_without_rules() {
        for (level, smb, game) in [
            (IncomingLevel::Nothing, false, false),
            (IncomingLevel::Games, false, true),
            (IncomingLevel::Everything, true, true),
        ] {
            let policy = IncomingPolicy::of(level);
            assert_eq!((policy.access(SMB).is_reachable(), policy.access(GAME).is_reachable()), (smb, game));
        }
    }

    #[test]
    fn rules_of_the_user_win_over_the_level() {
        let mut policy = IncomingPolicy::default();
        assert!(policy.set_rule(SMB, Some(PortRule::Allow)) && policy.set_rule(GAME, Some(PortRule::Block)));
        assert_eq!(policy.access(SMB), PortAccess::AllowedByUser);
        assert_eq!(policy.access(GAME), PortAccess::BlockedByUser);
        assert!(policy.set_rule(SMB, Some(PortRule::Block)) && policy.set_rule(GAME, None));
        assert_eq!(policy.access(SMB), PortAccess::BlockedByUser);
        assert_eq!(policy.access(GAME), PortAccess::Reachable);
    }

    #[test]
    fn number_of_rules_is_bounded() {
        let mut policy = IncomingPolicy::default();
        for port in 1..=256 {
            assert!(policy.set_rule(ServicePort::tcp(port), Some(PortRule::Allow)));
        }
        assert!(!policy.set_rule(SMB, Some(PortRule::Allow)));
        assert!(policy.set_rule(ServicePort::tcp(1), Some(PortRule::Block)), "replaces a rule");
        assert!(policy.set_rule(ServicePort::tcp(2), None) && policy.set_rule(SMB, Some(PortRule::Allow)));
    }

    #[test]
    fn policy_of_an_older_version_is_the_default() {
        assert_eq!(serde_json::from_str::<IncomingPolicy>("{}").ok(), Some(IncomingPolicy::default()));
        let policy = IncomingPolicy { allowed: [SMB].into(), ..IncomingPolicy::of(IncomingLevel::Nothing) };
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<IncomingPolicy>(&json).ok(), Some(policy), "{json}");
    }
}
