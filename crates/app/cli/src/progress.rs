//! Reports each step while a party comes up.

use std::{sync::Arc, time::Duration};

use partyline_model::{
    AppError, ErrorCode, JoinWait, MemberView, PartyId, PartyPhase, PartyView, ServerView, Snapshot,
};
use tokio::{sync::watch, time::timeout};

use crate::{member, names::name_of, output::Output, status, text::clean};

/// How long to wait for a server's first response after a party was made.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of a party on its way to being connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// In progress; another step follows.
    Doing(String),
    /// Done, as far as this computer can do it alone.
    Ready(String),
    /// It cannot continue without the user.
    Failed(AppError),
}

/// The party's present step.
pub fn step(party: &PartyView) -> Step {
    if let Some(problem) = &party.problem {
        return Step::Failed(problem.clone());
    }
    if party.phase == PartyPhase::Down {
        return Step::Ready("The party is switched off.".into());
    }
    let others: Vec<_> = party.members.iter().filter(|member| !member.me && member.online).collect();
    if others.is_empty() && !party.servers.iter().any(|server| server.connected) {
        return unreached(party);
    }
    if party.phase != PartyPhase::Up {
        return Step::Doing(match party.waits_for {
            Some(JoinWait::Approval) => "Waiting for the owner to let us in…".into(),
            _ => "Waiting for a member to let us in…".into(),
        });
    }
    if let Some(member) = others.iter().find(|member| member.path.is_none()) {
        return Step::Doing(format!("Finding a path to {}…", name_of(member)));
    }
    match others.as_slice() {
        [] => Step::Ready("Connected. Nobody else is online.".into()),
        others => Step::Ready(others.iter().map(|member| connected(member)).collect::<Vec<_>>().join(", ")),
    }
}

/// The step while neither a server nor a neighbour has responded.
fn unreached(party: &PartyView) -> Step {
    let private = |server: &ServerView| {
        server.problem.clone().filter(|problem| problem.code == ErrorCode::ServerPrivate)
    };
    let refused: Vec<AppError> = party.servers.iter().filter_map(private).collect();
    if let [problem, ..] = &refused[..]
        && refused.len() == party.servers.len()
    {
        return Step::Failed(problem.clone());
    }
    let troubled = party.servers.iter().find_map(|server| Some((server, server.problem.as_ref()?)));
    Step::Doing(match (troubled, party.servers.first()) {
        (Some((server, problem)), _) => {
            format!("{}: {} Trying again…", clean(&server.url), clean(&problem.message))
        }
        (None, Some(server)) => format!("Reaching {}…", clean(&server.url)),
        (None, None) => "Looking for members on this network…".into(),
    })
}

fn connected(member: &MemberView) -> String {
    let ping =
        member.quality.rtt_ms.map(|rtt| format!(", {}", member::round_trip(Some(rtt)))).unwrap_or_default();
    format!("{}: {}{ping}", name_of(member), member::connection(member).0)
}

/// The result of waiting for a party.
#[derive(Debug)]
pub enum Outcome {
    /// Connected, with a line to show.
    Ready(String),
    /// The time ran out first.
    StillConnecting,
}

/// Shows each step until the party is ready, or the time is over. Snapshots of revisions before `since` do not count:
/// they may still show a former membership in the same party.
pub async fn follow(
    output: &Output,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    (party, since): (PartyId, u32),
    limit: Duration,
) -> Result<Outcome, AppError> {
    let followed = async {
        let current = snapshots.wait_for(|snapshot| snapshot.revision >= since).await.is_ok();
        if current { steps(output, snapshots, party).await } else { Ok(Outcome::StillConnecting) }
    };
    let outcome = timeout(limit, followed).await;
    if output.terminal {
        output.end_progress();
    }
    outcome.unwrap_or(Ok(Outcome::StillConnecting))
}

/// Returns what keeps friends elsewhere from finding a party that was just made, one line each.
pub async fn obstacles(
    output: &Output,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    party: PartyId,
) -> Vec<String> {
    let servers = |snapshot: &Snapshot| {
        snapshot.parties.iter().find(|view| view.id == party).map(|view| view.servers.clone())
    };
    let decided = |servers: &[ServerView]| {
        servers.iter().any(|server| server.connected) || servers.iter().all(|server| server.problem.is_some())
    };
    let known = |snapshot: &Arc<Snapshot>| servers(snapshot).is_some_and(|servers| decided(&servers));
    let _ = timeout(SERVER_TIMEOUT, snapshots.wait_for(known)).await;
    let Some(servers) = servers(&snapshots.borrow()) else { return Vec::new() };
    if servers.is_empty() {
        return vec![
            "! The party has no server, so that only friends on this network can join.".to_owned(),
            "  Name one with --server, or for all new parties: `partyline config set servers wss://host`."
                .into(),
        ];
    }
    if servers.iter().any(|server| server.connected) {
        return Vec::new();
    }
    let lines = servers.iter().flat_map(|server| status::server_lines(output, server));
    lines.chain(["  Until it answers, only friends on this network can join.".to_owned()]).collect()
}

async fn steps(
    output: &Output,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    party: PartyId,
) -> Result<Outcome, AppError> {
    let mut shown = None;
    loop {
        let step = snapshots.borrow_and_update().parties.iter().find(|view| view.id == party).map(step);
        match &step {
            Some(Step::Ready(line)) => return Ok(Outcome::Ready(line.clone())),
            Some(Step::Failed(error)) => return Err(error.clone()),
            Some(Step::Doing(line)) if shown != step => {
                if output.terminal {
                    output.progress(line)
                } else {
                    output.say(line)
                }
            }
            _ => {}
        }
        shown = step;
        if snapshots.changed().await.is_err() {
            return Ok(Outcome::StillConnecting);
        }
    }
}
