//! Callers that wait for the node's answer to their command.

use std::collections::HashMap;

use partyline_model::{AppError, Reply};
use partyline_node::RequestId;
use tokio::sync::oneshot;

/// The caller's end of one call.
pub(crate) type Answer = oneshot::Sender<Result<Reply, AppError>>;

/// Calls that the node has not answered yet. Request 0 belongs to the engine itself; nobody waits for it.
#[derive(Debug, Default)]
pub(crate) struct PendingAnswers {
    waiting: HashMap<RequestId, Answer>,
    last: RequestId,
}

impl PendingAnswers {
    /// The request of commands that the engine gives by itself.
    pub(crate) const OWN: RequestId = 0;

    /// Registers a caller and returns the request under which its answer will come.
    pub(crate) fn add(&mut self, answer: Answer) -> RequestId {
        self.last += 1;
        self.waiting.insert(self.last, answer);
        self.last
    }

    /// Returns the caller that waits for a request, if any.
    pub(crate) fn take(&mut self, request: RequestId) -> Option<Answer> {
        self.waiting.remove(&request)
    }
}

/// Sends a caller its result; one that has given up does not get it.
pub(crate) fn send(answer: Answer, result: Result<Reply, AppError>) {
    if let Err(error) = &result {
        tracing::debug!(%error, "refused a command");
    }
    let _ = answer.send(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_answered_once() {
        let mut answers = PendingAnswers::default();
        let (answer, mut answered) = oneshot::channel();
        let request = answers.add(answer);
        assert!(request != PendingAnswers::OWN && answers.take(PendingAnswers::OWN).is_none());
        send(answers.take(request).expect("a caller"), Ok(Reply::Done));
        assert_eq!(answered.try_recv(), Ok(Ok(Reply::Done)));
        assert!(answers.take(request).is_none());
    }
}
