//! What friends can reach on this computer: `partyline ports`.

use partyline_model::{
    AppError, Command, EngineCommand, IncomingLevel, IncomingPolicy, OfferedPort, PortAccess, PortRule, Reply,
};
use partyline_service::{Place, name_programs};

use crate::{
    arguments::{Level, PortChange, PortList, Ports},
    output::{Output, Tone},
    reach,
    reply::unexpected,
    select, table,
    text::clean,
};

/// What a new member is told about the default.
pub const DEFAULT: &str = "Friends can reach your games, but not system services such as remote login or file sharing; \
                           see `partyline ports`.";

/// Shows or changes what friends can reach.
pub async fn run(ports: Ports, output: &Output) -> Result<(), AppError> {
    match ports.change {
        None => show(&ports.place, ports.party.as_deref(), output).await,
        Some(PortChange::Allow(list)) => set(list, Some(PortRule::Allow), output).await,
        Some(PortChange::Block(list)) => set(list, Some(PortRule::Block), output).await,
        Some(PortChange::Forget(list)) => set(list, None, output).await,
        Some(PortChange::Level { level, party, place }) => {
            set_level(level, &place, party.as_deref(), output).await
        }
    }
}

async fn show(place: &Place, party: Option<&str>, output: &Output) -> Result<(), AppError> {
    let controller = place.connect().await?;
    let snapshot = reach::state(&controller).await?;
    let party = select::party(&snapshot, party)?;
    let mut reply = controller.request(EngineCommand::OfferedPorts { party: party.id }).await?;
    name_programs(&mut reply);
    let Reply::OfferedPorts(ports) = &reply else { return Err(unexpected(&reply)) };
    output.answer(&reply, || {
        lines(output, &party.incoming, ports).iter().for_each(|line| output.say(line));
    });
    Ok(())
}

fn lines(output: &Output, policy: &IncomingPolicy, ports: &[OfferedPort]) -> Vec<String> {
    let mut lines = vec![level(policy.level).to_owned()];
    if ports.is_empty() {
        lines.push("No program of this computer listens for friends.".into());
        return lines;
    }
    let row = |offered: &OfferedPort| {
        let (access, tone) = access(offered.access);
        let program = match (&offered.program, offered.listening) {
            (Some(program), _) => clean(program),
            (None, true) => "unknown program".into(),
            (None, false) => "not in use".into(),
        };
        let service = offered.service.as_deref().unwrap_or_default();
        vec![
            (offered.port.to_string(), Tone::Plain),
            (access.to_owned(), tone),
            (program, Tone::Plain),
            (service.to_owned(), Tone::Dim),
        ]
    };
    lines.extend(table::render(
        output,
        &["PORT", "FRIENDS", "PROGRAM", "USUALLY"],
        &ports.iter().map(row).collect::<Vec<_>>(),
    ));
    lines
}

const fn level(level: IncomingLevel) -> &'static str {
    match level {
        IncomingLevel::Everything => "Friends can reach everything, as in one room (level everything).",
        IncomingLevel::Games => "Friends can reach everything except system services (level games).",
        IncomingLevel::Nothing => "Friends can reach nothing but what you allow (level nothing).",
    }
}

const fn access(access: PortAccess) -> (&'static str, Tone) {
    match access {
        PortAccess::Reachable => ("reachable", Tone::Plain),
        PortAccess::AllowedByUser => ("allowed by you", Tone::Good),
        PortAccess::BlockedByDefault => ("blocked by default", Tone::Dim),
        PortAccess::BlockedByUser => ("blocked by you", Tone::Dim),
    }
}

async fn set(list: PortList, rule: Option<PortRule>, output: &Output) -> Result<(), AppError> {
    let controller = list.place.connect().await?;
    let party = select::party(&*reach::state(&controller).await?, list.party.as_deref())?.id;
    for port in &list.ports {
        let reply = controller.request(Command::SetPortRule { party, port: *port, rule }).await?;
        let Reply::Done = reply else { return Err(unexpected(&reply)) };
    }
    let ports = list.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    output.answer(&Reply::Done, || {
        output.say(&match rule {
            Some(PortRule::Allow) => format!("Friends can reach {ports}."),
            Some(PortRule::Block) => format!("Friends cannot reach {ports} any more."),
            None => format!("The level counts for {ports} again."),
        });
    });
    Ok(())
}

async fn set_level(to: Level, place: &Place, party: Option<&str>, output: &Output) -> Result<(), AppError> {
    let controller = place.connect().await?;
    let party = select::party(&*reach::state(&controller).await?, party)?.id;
    let reply = controller.request(Command::SetIncomingLevel { party, level: to.into() }).await?;
    let Reply::Done = reply else { return Err(unexpected(&reply)) };
    output.answer(&reply, || output.say(level(to.into())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use partyline_model::ServicePort;

    use super::*;

    #[test]
    fn ports_show_who_reaches_them_and_why() {
        let offered = |port: ServicePort, program: Option<&str>, access| OfferedPort {
            port,
            listening: true,
            program: program.map(str::to_owned),
            service: port.system_service().map(str::to_owned),
            access,
        };
        let ports = [
            offered(ServicePort::tcp(22), None, PortAccess::BlockedByDefault),
            offered(ServicePort::udp(27_015), Some("srcds\u{1b}[2J"), PortAccess::Reachable),
            OfferedPort {
                listening: false,
                ..offered(ServicePort::tcp(445), None, PortAccess::AllowedByUser)
            },
        ];
        let shown = lines(&Output::plain(), &IncomingPolicy::default(), &ports);
        assert_eq!(shown[0], "Friends can reach everything except system services (level games).");
        assert_eq!(shown[2], "tcp/22     blocked by default  unknown program  Remote login (SSH)");
        assert!(
            shown[3].starts_with("udp/27015  reachable           srcds") && !shown[3].contains('\u{1b}'),
            "{shown:?}"
        );
        assert_eq!(shown[4], "tcp/445    allowed by you      not in use       File sharing (SMB)");
        assert_eq!(lines(&Output::plain(), &IncomingPolicy::default(), &[]).len(), 2);
    }
}
