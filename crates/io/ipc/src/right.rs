//! What clients may ask of the service.

use partyline_model::{ClientCommand, Command, EngineCommand};

/// How much a client may do. Each right includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// To read what is there: state, measurements, metrics.
    Observe,
    /// To change parties and settings, to make this computer send something, and to stop the engine.
    Control,
}

impl Right {
    /// Returns the right that a command needs.
    pub(crate) const fn needed_for(command: &ClientCommand) -> Self {
        match command {
            ClientCommand::Node(command) => Self::needed_by_node(command),
            ClientCommand::Engine(EngineCommand::Metrics) => Self::Observe,
            // The service sees more of other users' programs than an observer may.
            ClientCommand::Engine(EngineCommand::TestServer { .. } | EngineCommand::OfferedPorts { .. }) => {
                Self::Control
            }
        }
    }

    /// Names every command, so that a new one cannot be forgotten here.
    const fn needed_by_node(command: &Command) -> Self {
        match command {
            Command::Snapshot | Command::Preview { .. } | Command::Samples { .. } | Command::Doctor => {
                Self::Observe
            }
            Command::Create { .. }
            | Command::Join { .. }
            | Command::Invite { .. }
            | Command::Revoke { .. }
            | Command::Leave { .. }
            | Command::Kick { .. }
            | Command::SetApproval { .. }
            | Command::AnswerJoin { .. }
            | Command::Up { .. }
            | Command::Down { .. }
            | Command::SetRange { .. }
            | Command::RequestRange { .. }
            | Command::SetIncomingLevel { .. }
            | Command::SetPortRule { .. }
            | Command::NewIdentity
            | Command::ForgetFormer { .. }
            | Command::Ping { .. }
            | Command::MeasurePaths { .. }
            | Command::Netcheck { .. }
            | Command::Configure { .. }
            | Command::TrustServer { .. }
            | Command::Stop => Self::Control,
        }
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::PartyId;

    use super::*;

    #[test]
    fn reading_needs_less_than_changing() {
        let needed = |command: Command| Right::needed_for(&command.into());
        assert_eq!(needed(Command::Snapshot), Right::Observe);
        assert_eq!(needed(Command::Leave { party: PartyId([1; 32]) }), Right::Control);
        assert_eq!(needed(Command::Stop), Right::Control);
        assert_eq!(Right::needed_for(&EngineCommand::Metrics.into()), Right::Observe);
        let ports = EngineCommand::OfferedPorts { party: PartyId([1; 32]) };
        assert_eq!(Right::needed_for(&ports.into()), Right::Control);
        assert!(Right::Observe < Right::Control);
    }
}
