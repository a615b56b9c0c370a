//! A connection to a member's engine over the local socket, for states that change too fast for the command line.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use partyline_ipc::{Connection, Endpoint, connect};
use partyline_model::{ClientCommand, Command, Reply, Snapshot};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::timeout,
};

/// Time limit for a reply of the engine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to an engine.
#[derive(Debug)]
pub struct Remote {
    runtime: Runtime,
    connection: Connection,
}

impl Remote {
    pub(super) fn connect(endpoint: &Endpoint) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let connection = runtime.block_on(connect(endpoint))?;
        Ok(Self { runtime, connection })
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    /// Returns an error if the engine refuses the command, has ended, or does not reply.
    pub fn request(&self, command: Command) -> Result<Reply> {
        let command_text = format!("{command:?}");
        let (answer, answered) = oneshot::channel();
        self.runtime.block_on(async {
            self.connection.calls.send((ClientCommand::Node(command), answer)).await?;
            match timeout(ANSWER_TIMEOUT, answered).await {
                Ok(answer) => Ok(answer??),
                Err(_) => bail!("no answer to {command_text}"),
            }
        })
    }

    /// Returns the engine's current snapshot.
    ///
    /// # Errors
    /// As [`Remote::request`].
    pub fn snapshot(&self) -> Result<Arc<Snapshot>> {
        match self.request(Command::Snapshot)? {
            Reply::Snapshot(snapshot) => Ok(Arc::from(snapshot)),
            other => bail!("the engine answered with {other:?}"),
        }
    }
}
