//! Answers to commands.

use partyline_model::{AppError, Now, Reply};
use partyline_node::RequestId;

use super::Engine;
use crate::doctor;

impl Engine {
    /// Answers a command, once what it changed is written down.
    pub(super) async fn answer(&mut self, now: Now, request: RequestId, result: Result<Reply, AppError>) {
        let Some(answer) = self.answers.remove(&request) else { return };
        let result = match result {
            Ok(Reply::Doctor(findings)) => {
                Ok(Reply::Doctor(doctor::complete(findings, &self.store, &self.ports.states())))
            }
            Ok(reply) if self.store.is_dirty() && changes(&reply) => self.secure(now, reply).await,
            other => other,
        };
        // The caller may have given up.
        let _ = answer.send(result);
    }

    async fn secure(&mut self, now: Now, reply: Reply) -> Result<Reply, AppError> {
        let written = self.store.write(now.instant, self.node.save()).await;
        if let (Err(_), Reply::Created { party, .. } | Reply::Joined { party }) = (&written, &reply) {
            self.node.abandon(now, *party);
        }
        written.map(|()| reply)
    }
}

/// Whether an answer says that something was done, rather than how things are.
const fn changes(reply: &Reply) -> bool {
    !matches!(
        reply,
        Reply::Snapshot(_)
            | Reply::Preview(_)
            | Reply::Pong(_)
            | Reply::Samples(_)
            | Reply::Doctor(_)
            | Reply::Metrics { .. }
    )
}
