//! Round trips to a member.

use std::time::Duration;

use partyline_engine::Controller;
use partyline_model::{AppError, Command, ErrorCode, MemberView, PartyPhase, PartyView, Reply};
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    names::name_of,
    output::Output,
    reply::unexpected,
    text::{clean, milliseconds},
};

/// Counts of requests and responses.
#[derive(Debug, Default, Serialize)]
struct Tally {
    sent: u32,
    received: u32,
    /// One per request; `null` if no response arrived in time.
    rtt_ms: Vec<Option<f32>>,
}

impl Tally {
    fn add(&mut self, rtt: Option<f32>) {
        self.sent += 1;
        self.received += u32::from(rtt.is_some());
        self.rtt_ms.push(rtt);
    }

    fn summary(&self) -> String {
        let times: Vec<f32> = self.rtt_ms.iter().flatten().copied().collect();
        let mut line = format!("{} of {} answered", self.received, self.sent);
        if !times.is_empty() {
            let least = times.iter().copied().fold(f32::INFINITY, f32::min);
            let most = times.iter().copied().fold(0.0, f32::max);
            let mean = times.iter().sum::<f32>() / times.len() as f32;
            let [least, mean, most] = [least, mean, most].map(milliseconds);
            line += &format!("; least {least}, mean {mean}, most {most}");
        }
        line
    }
}

/// Pings `count` times.
///
/// # Errors
/// The member is this computer, the party is off, or no response arrived at all.
pub async fn run(
    output: &Output,
    controller: &Controller,
    (party, member): (&PartyView, &MemberView),
    count: u32,
    interval: Duration,
) -> Result<(), AppError> {
    if member.me {
        return Err(AppError::new(
            ErrorCode::InvalidInput,
            format!("{} is this computer.", clean(&member.name)),
            "Ping another member; `partyline status` shows them.",
        ));
    }
    if party.phase == PartyPhase::Down {
        return Err(AppError::new(
            ErrorCode::InvalidInput,
            format!("{} is switched off on this computer.", clean(&party.name)),
            "Switch it on with `partyline up`.",
        ));
    }
    let name = name_of(member);
    let mut tally = Tally::default();
    for number in 1..=count {
        let rtt = once(controller, party, member).await?;
        tally.add(rtt);
        match rtt {
            Some(rtt) => output.say(&format!("{name}: {number}: {}", milliseconds(rtt))),
            None => output.say(&format!("{name}: {number}: no answer")),
        }
        if number < count {
            sleep(interval).await;
        }
    }
    output.say(&tally.summary());
    if tally.received == 0 {
        return Err(silent(&name));
    }
    if output.json {
        output.value(&tally);
    }
    Ok(())
}

async fn once(
    controller: &Controller,
    party: &PartyView,
    member: &MemberView,
) -> Result<Option<f32>, AppError> {
    match controller.request(Command::Ping { party: party.id, member: member.id }).await {
        Ok(Reply::Pong(sample)) => Ok(Some(sample.rtt_ms)),
        Ok(other) => Err(unexpected(&other)),
        Err(error) if error.code == ErrorCode::Timeout => Ok(None),
        Err(error) => Err(error),
    }
}

fn silent(name: &str) -> AppError {
    AppError::new(
        ErrorCode::Timeout,
        format!("{name} did not answer."),
        "`partyline status --why` shows what was tried to reach it.",
    )
}
