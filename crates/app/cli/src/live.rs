//! Shows the state as it changes.

use std::{future::Future, sync::Arc, time::Duration};

use partyline_engine::Controller;
use partyline_model::{AppError, PartyId, PartyPhase, PartyView, Snapshot};
use partyline_service::Place;
use tokio::time::sleep;

use crate::{member, names::name_of, output::Output, reach::until_interrupted, select, status, text::clean};

/// What to show.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub output: &'a Output,
    /// Lines that stay above it on a terminal.
    pub above: &'a [String],
    /// Only this party.
    pub party: Option<&'a str>,
    /// A party that was just made or joined; nothing is shown before the state contains it.
    pub awaited: Option<PartyId>,
    pub why: bool,
}

/// The shortest time between two drawings.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

impl View<'_> {
    /// Shows the service's state until Ctrl-C, over restarts of the service.
    pub async fn follow_service(&self, place: &Place, mut controller: Controller) -> Result<(), AppError> {
        let follow = async {
            loop {
                self.follow(controller).await?;
                self.output.say("The service has stopped; waiting for it…");
                controller = place.reconnect().await?;
            }
        };
        tokio::select! {
            result = follow => result,
            () = until_interrupted() => Ok(()),
        }
    }

    /// Shows the state until the engine ends.
    pub async fn follow(&self, controller: Controller) -> Result<(), AppError> {
        let mut snapshots = controller.snapshots();
        drop(controller);
        if snapshots.wait_for(|snapshot| self.is_complete(snapshot)).await.is_err() {
            return Ok(());
        }
        let mut before: Option<Arc<Snapshot>> = None;
        if self.output.terminal {
            self.output.clear();
        }
        loop {
            let now = snapshots.borrow_and_update().clone();
            self.show(before.as_deref(), &now)?;
            before = Some(now);
            sleep(REDRAW_INTERVAL).await;
            if snapshots.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Shows the state while `work` runs, and ends with it.
    pub async fn beside<T>(
        &self,
        controller: Controller,
        work: impl Future<Output = T>,
    ) -> Result<T, AppError> {
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => return Ok(done),
            shown = self.follow(controller) => shown?,
        }
        Ok(work.await)
    }

    /// Returns true if the state contains the awaited party. Watched snapshots may be a moment behind a reply.
    fn is_complete(&self, snapshot: &Snapshot) -> bool {
        self.awaited.is_none_or(|id| snapshot.parties.iter().any(|party| party.id == id))
    }

    fn show(&self, before: Option<&Snapshot>, now: &Snapshot) -> Result<(), AppError> {
        if self.output.json {
            self.output.value(now);
        } else if let (Some(before), false) = (before, self.output.terminal) {
            changes(before, now).iter().for_each(|line| self.output.say(line));
        } else {
            let only = self.party.map(|word| select::party(now, Some(word))).transpose()?;
            let lines = status::lines(self.output, now, only, self.why);
            if self.output.terminal {
                self.output.redraw(&[self.above, &lines].concat());
            } else {
                lines.iter().for_each(|line| self.output.say(line));
            }
        }
        Ok(())
    }
}

/// Describes the changes between two states, one line each.
pub fn changes(before: &Snapshot, now: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for party in &now.parties {
        let name = clean(&party.name);
        match before.parties.iter().find(|old| old.id == party.id) {
            None => lines.push(format!("{name}: joined")),
            Some(old) => {
                lines.extend(party_changes(old, party).into_iter().map(|line| format!("{name}: {line}")))
            }
        }
    }
    let gone = before.parties.iter().filter(|old| now.parties.iter().all(|party| party.id != old.id));
    lines.extend(gone.map(|party| format!("{}: left", clean(&party.name))));
    lines
}

fn party_changes(before: &PartyView, now: &PartyView) -> Vec<String> {
    let mut lines = Vec::new();
    if before.phase != now.phase {
        let word = match now.phase {
            PartyPhase::Down => "off",
            PartyPhase::Connecting => "connecting",
            PartyPhase::Up => "on",
        };
        lines.push(word.to_owned());
    }
    if let (true, Some(problem)) = (before.problem != now.problem, &now.problem) {
        lines.push(clean(&problem.message));
    }
    for member in now.members.iter().filter(|member| !member.me) {
        let words = member::connection(member).0;
        let old = before.members.iter().find(|old| old.id == member.id).map(|old| member::connection(old).0);
        if old.as_ref() != Some(&words) {
            lines.push(format!("{} {words}", name_of(member)));
        }
    }
    let gone = before.members.iter().filter(|old| now.members.iter().all(|member| member.id != old.id));
    lines.extend(gone.map(|member| format!("{} left", name_of(member))));
    lines
}
