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

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(50);
const WATCH: Duration = Duration::from_secs(1);
/// How long names may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(5);
/// How long an engine of our own may take to give ports back to the router.
const GOODBYE: Duration = Duration::from_secs(5);

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
    let patience = Duration::from_secs(options.timeout.into());
    let network = follow(controller, stun.len(), patience, output).await?;
    show(&network, output);
    if options.watch { watch(controller, network, patience, output).await } else { Ok(()) }
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

async fn look(controller: &Controller) -> Result<NetworkView, AppError> {
    reach::state(controller).await.map(|snapshot| snapshot.network)
}

/// Tells each step until the measurement is over.
async fn follow(
    controller: &Controller,
    named: usize,
    patience: Duration,
    output: &Output,
) -> Result<NetworkView, AppError> {
    let begun = Instant::now();
    let mut told = BTreeSet::new();
    loop {
        let network = look(controller).await?;
        let report = &network.report;
        if !output.json {
            tell(&network, &mut told, output);
        }
        let asked = report.servers.len() >= named.max(1) || begun.elapsed() > LOOKUP;
        let heard = network.nat.udp_blocked.is_some() || begun.elapsed() > LOOKUP;
        if asked && !report.enabled && heard {
            return Ok(network);
        }
        if asked && report.servers.is_empty() {
            return Err(no_servers());
        }
        let settled = network.nat.udp_blocked.is_some() || begun.elapsed() > patience;
        if asked && !report.running && settled {
            return Ok(network);
        }
        if begun.elapsed() > patience {
            return Err(too_slow());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A line for every step that is over now.
fn tell(network: &NetworkView, told: &mut BTreeSet<CheckTopic>, output: &Output) {
    for step in &network.report.steps {
        let over = matches!(step.state, StepState::Known | StepState::Unknown);
        if over && told.insert(step.what) {
            let (mark, tone) =
                if step.state == StepState::Known { ("✓", Tone::Good) } else { ("?", Tone::Fair) };
            let words = report::step(network, step.what);
            output.say(&format!("{} {words}", output.paint(mark, tone)));
        }
    }
}

/// Shows the report again whenever the network is another, or does something else: once that is measured, or cannot be
/// in time.
async fn watch(
    controller: &Controller,
    mut shown: NetworkView,
    patience: Duration,
    output: &Output,
) -> Result<(), AppError> {
    let mut changed: Option<Instant> = None;
    loop {
        tokio::time::sleep(WATCH).await;
        let network = look(controller).await?;
        if is_same(&network, &shown) {
            changed = None;
            continue;
        }
        let since = *changed.get_or_insert_with(Instant::now);
        if !network.report.running || since.elapsed() > patience {
            output.say("");
            show(&network, output);
            (shown, changed) = (network, None);
        }
    }
}

/// Whether two reports say the same about a network. Times, counts and what is tried again all the time do not matter.
fn is_same(one: &NetworkView, other: &NetworkView) -> bool {
    let opened = |network: &NetworkView| -> Vec<String> {
        let works = network.report.router.iter().filter(|check| check.works);
        works.map(|check| check.protocol.clone()).collect()
    };
    one.nat == other.nat && one.badge == other.badge && opened(one) == opened(other)
}

/// An engine in this process that keeps nothing.
struct Own {
    engine: RunningEngine,
    directory: PathBuf,
}

impl Own {
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
        let goodbye = async {
            let _ = controller.request(Command::Stop).await;
            join.await
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        // What stays is in the temporary files, which are cleaned anyway.
        let _ = std::fs::remove_dir_all(&directory);
    }
}

async fn engine(options: &Netcheck) -> Result<(Controller, Option<Own>), AppError> {
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
    let own = Own::start().await?;
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
