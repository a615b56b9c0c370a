//! `partyline netcheck`: what this computer's network does, step by step, and what that means for playing.
//!
//! The service measures if it runs. Else this process does, with an engine of its own that keeps nothing and makes no
//! network device, so that it needs no rights: a player can look before installing anything.

mod advice;
mod report;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use partyline_engine::{Controller, Engine, EngineOptions, RunningEngine};
use partyline_model::{AppError, CheckTopic, Command, ErrorCode, NetworkView, Settings, StepState};
use partyline_platform::Directories;

use crate::{
    arguments::Netcheck,
    output::{Output, Tone},
    reach::{self, until_interrupted},
};

/// The time between two requests for the progress.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The time between two comparisons with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long the look-up of names may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an engine of our own may take to release the ports that the router opened.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Measures and shows.
pub async fn run(options: Netcheck, output: &Output) -> Result<(), AppError> {
    let (controller, own) = engine(&options).await?;
    let result = tokio::select! {
        result = check(&controller, &options, output) => result,
        () = until_interrupted() => Ok(()),
    };
    if let Some(own) = own {
        own.end().await;
    }
    result
}

async fn check(controller: &Controller, options: &Netcheck, output: &Output) -> Result<(), AppError> {
    let stun = servers(options);
    controller.request(Command::Netcheck { stun: stun.clone() }).await?;
    let limit = Duration::from_secs(options.timeout.into());
    let network = follow(controller, stun.len(), limit, output).await?;
    show(&network, output);
    if options.watch { watch(controller, network, limit, output).await } else { Ok(()) }
}

/// The servers named, else those of the service's settings that this process is given.
fn servers(options: &Netcheck) -> Vec<String> {
    let host = |url: &String| {
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        rest.split(['/', ':']).next().unwrap_or_default().to_owned()
    };
    if options.stun.is_empty() { options.servers.iter().map(host).collect() } else { options.stun.clone() }
}

fn show(network: &NetworkView, output: &Output) {
    output.answer(network, || report::lines(output, network).iter().for_each(|line| output.say(line)));
}

async fn current(controller: &Controller) -> Result<NetworkView, AppError> {
    reach::state(controller).await.map(|snapshot| snapshot.network)
}

/// Reports each step until the measurement ends.
async fn follow(
    controller: &Controller,
    named: usize,
    limit: Duration,
    output: &Output,
) -> Result<NetworkView, AppError> {
    let begun = Instant::now();
    let mut reported = BTreeSet::new();
    loop {
        let network = current(controller).await?;
        let report = &network.report;
        if !output.json {
            report_steps(&network, &mut reported, output);
        }
        let asked = report.servers.len() >= named.max(1) || begun.elapsed() > LOOKUP_TIMEOUT;
        let heard = network.nat.udp_blocked.is_some() || begun.elapsed() > LOOKUP_TIMEOUT;
        if asked && !report.enabled && heard {
            return Ok(network);
        }
        if asked && report.servers.is_empty() {
            return Err(no_servers());
        }
        let settled = network.nat.udp_blocked.is_some() || begun.elapsed() > limit;
        if asked && !report.running && settled {
            return Ok(network);
        }
        if begun.elapsed() > limit {
            return Err(too_slow());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Writes a line for every step that has ended since the last call.
fn report_steps(network: &NetworkView, reported: &mut BTreeSet<CheckTopic>, output: &Output) {
    for step in &network.report.steps {
        let over = matches!(step.state, StepState::Known | StepState::Unknown);
        if over && reported.insert(step.what) {
            let (mark, tone) =
                if step.state == StepState::Known { ("✓", Tone::Good) } else { ("?", Tone::Fair) };
            let words = report::step(network, step.what);
            output.say(&format!("{} {words}", output.paint(mark, tone)));
        }
    }
}

/// Shows the report again whenever the network or its behavior changes, once the new state is measured or the time is
/// over.
async fn watch(
    controller: &Controller,
    mut shown: NetworkView,
    limit: Duration,
    output: &Output,
) -> Result<(), AppError> {
    let mut changed: Option<Instant> = None;
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let network = current(controller).await?;
        if is_same(&network, &shown) {
            changed = None;
            continue;
        }
        let since = *changed.get_or_insert_with(Instant::now);
        if !network.report.running || since.elapsed() > limit {
            output.say("");
            show(&network, output);
            (shown, changed) = (network, None);
        }
    }
}

/// Returns true if two reports say the same about a network, apart from times and counts.
fn is_same(one: &NetworkView, other: &NetworkView) -> bool {
    let opened = |network: &NetworkView| -> Vec<String> {
        let works = network.report.router.iter().filter(|check| check.works);
        works.map(|check| check.protocol.clone()).collect()
    };
    one.nat == other.nat && one.badge == other.badge && opened(one) == opened(other)
}

/// An engine in this process that stores nothing.
struct OwnEngine {
    engine: RunningEngine,
    directory: PathBuf,
}

impl OwnEngine {
    async fn start() -> Result<Self, AppError> {
        let directory = std::env::temp_dir().join(format!("partyline-netcheck-{}", std::process::id()));
        let part = |name: &str| directory.join(name);
        Directories { state: part("state"), runtime: part("run"), log: part("log"), config: part("config") }
            .create()?;
        let engine = Box::pin(Engine::start(EngineOptions {
            state_dir: directory.join("state"),
            runtime_dir: directory.join("run"),
            settings: Settings::default(),
            extra_ca: None,
        }))
        .await?;
        Ok(Self { engine, directory })
    }

    /// Gives ports back to the router and leaves nothing behind.
    async fn end(self) {
        let Self { engine: RunningEngine { controller, join }, directory } = self;
        let stop = async {
            let _ = controller.request(Command::Stop).await;
            join.await
        };
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, stop).await;
        // What stays is in the temporary files, which are cleaned anyway.
        let _ = std::fs::remove_dir_all(&directory);
    }
}

async fn engine(options: &Netcheck) -> Result<(Controller, Option<OwnEngine>), AppError> {
    if !options.here {
        match options.place.connect().await {
            Ok(controller) => return Ok((controller, None)),
            Err(error) if error.code == ErrorCode::ServiceUnreachable => {}
            Err(error) => return Err(error),
        }
    }
    if servers(options).is_empty() {
        return Err(no_servers());
    }
    let own = OwnEngine::start().await?;
    Ok((own.engine.controller.clone(), Some(own)))
}

fn no_servers() -> AppError {
    AppError::new(
        ErrorCode::InvalidInput,
        "There is no server to ask.",
        "Name a STUN server with --stun host:port, or join a party, which brings its own.",
    )
}

fn too_slow() -> AppError {
    AppError::new(
        ErrorCode::Timeout,
        "The measurement did not end in time.",
        "Servers may be unreachable; try again, name others with --stun, or wait longer with --timeout.",
    )
}
