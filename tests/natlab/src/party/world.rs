//! The players of a scenario: a lab, perhaps a server, and members who run the real programs.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use partyline_ipc::Endpoint;
use partyline_model::{MemberView, PartyPhase, PartyView, PathKind, Snapshot};
use serde_json::{Map, Value};

use super::{Remote, Server};
use crate::{Host, Lab, Line, Process, checked, until, wait::that};

/// How long starting, creating and joining may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// How long members may take to find (or find again) a path to each other.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);

/// Environment variables of a service, by name.
pub type Environment = &'static [(&'static str, &'static str)];

/// Lines of each log that are shown when a scenario fails.
const LAST_LINES: usize = 25;

/// A lab with programs to run in it.
#[derive(Debug)]
pub struct World {
    /// The lab.
    pub lab: Lab,
    programs: PathBuf,
    figures: Mutex<Map<String, Value>>,
}

impl World {
    /// An empty lab. The programs are those next to this one, or in the directory `PARTYLINE_PROGRAMS`.
    ///
    /// # Errors
    /// A program is missing, or the lab cannot be made.
    pub fn new() -> Result<Self> {
        let programs = match env::var_os("PARTYLINE_PROGRAMS") {
            Some(directory) => directory.into(),
            None => env::current_exe()?.parent().context("no directory")?.to_owned(),
        };
        for program in ["partyline", "partyline-service", "partyline-server"] {
            ensure!(programs.join(program).exists(), "{program} is not in {}: build it", programs.display());
        }
        Ok(Self { lab: Lab::new()?, programs, figures: Mutex::default() })
    }

    /// A server in the lab.
    ///
    /// # Errors
    /// It does not come up.
    pub fn server(&self) -> Result<Server> {
        Server::start(self.lab.server("server")?, self.programs.join("partyline-server"))
    }

    /// A server with two addresses at the end of a line, as members far away see it.
    ///
    /// # Errors
    /// It does not come up.
    pub fn far_server(&self, name: &str, line: Line) -> Result<Server> {
        let host = self.lab.open_host(name, line)?;
        let (second, _) = self.lab.second_addresses(&host)?;
        let listen = [host.v4(), second].map(|ip| ["--relay-listen".to_owned(), ip.to_string()]);
        self.server_on(host, listen.concat())
    }

    /// A server that is reached by name, over IPv4 and IPv6.
    ///
    /// # Errors
    /// It does not come up.
    pub fn named_server(&self, name: &str) -> Result<Server> {
        let host = self.lab.server("server")?;
        let addresses: Vec<IpAddr> =
            [Some(host.v4().into()), host.v6().map(Into::into)].into_iter().flatten().collect();
        self.lab.name(name, &addresses)?;
        let listen = addresses.iter().flat_map(|ip| ["--relay-listen".to_owned(), ip.to_string()]);
        Server::start_as(name.to_owned(), host, self.programs.join("partyline-server"), listen.collect())
    }

    /// A server on a host, with further arguments about its relay; without any it listens on the host's IPv4 address.
    ///
    /// # Errors
    /// It does not come up.
    pub fn server_on(&self, host: Host, relay: Vec<String>) -> Result<Server> {
        Server::start_with(host, self.programs.join("partyline-server"), relay)
    }

    /// A party of one member on each host, the first its owner, all connected to all.
    ///
    /// # Errors
    /// They do not get that far.
    pub fn party(&self, server: Option<&Server>, hosts: Vec<Host>) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        let mut link = String::new();
        for host in hosts {
            let member = self.member(host)?;
            if members.is_empty() {
                link = member.create(server)?;
            } else {
                member.join(&link)?;
            }
            members.push(member);
        }
        connected(&members)?;
        Ok(members)
    }

    /// A running service on a host, in no party yet.
    ///
    /// # Errors
    /// It does not come up.
    pub fn member(&self, host: Host) -> Result<Member> {
        self.member_with(host, &[])
    }

    /// The same, with further environment variables for its service.
    ///
    /// # Errors
    /// The service does not come up.
    pub fn member_with(&self, host: Host, environment: Environment) -> Result<Member> {
        let directory = host.directory().join(host.name());
        fs::create_dir_all(&directory)?;
        let mut member =
            Member { host, programs: self.programs.clone(), directory, environment, service: None };
        member.start()?;
        Ok(member)
    }

    /// Where one of the programs lies.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Keeps a figure for the report.
    pub fn note(&self, name: &str, value: impl Into<Value>) {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value.into());
    }

    /// The figures noted.
    #[must_use]
    pub fn figures(&self) -> Map<String, Value> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last lines of every log. The logs themselves are kept beside the programs, in `natlab-logs/<scenario>`.
    #[must_use]
    pub fn last_words(&self, scenario: &str) -> String {
        let kept = self.programs.join("natlab-logs").join(scenario);
        let _ = fs::create_dir_all(&kept);
        self.lab.write_traces();
        let mut words = format!("The whole logs are in {}\n", kept.display());
        for (name, path) in self.logs() {
            let _ = fs::copy(&path, kept.join(&name));
            let text = fs::read_to_string(&path).unwrap_or_default();
            let first = text.lines().count().saturating_sub(LAST_LINES);
            let _ = writeln!(words, "--- {name}");
            text.lines().skip(first).for_each(|line| words.extend([line, "\n"]));
        }
        words
    }

    fn logs(&self) -> BTreeMap<String, PathBuf> {
        let entries = fs::read_dir(self.lab.directory()).into_iter().flatten().flatten();
        let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
        named.filter(|(name, _)| name.ends_with(".log")).collect()
    }
}

/// One player: a host, its service, and what the command line does there.
#[derive(Debug)]
pub struct Member {
    /// The computer.
    pub host: Host,
    programs: PathBuf,
    directory: PathBuf,
    environment: Environment,
    service: Option<Process>,
}

impl Member {
    /// The display name, which is the host's.
    #[must_use]
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Starts the service (again), and waits until it answers.
    ///
    /// # Errors
    /// It does not.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.command("partyline-service");
        command.arg("run").envs(self.environment.iter().copied());
        let mut service = self.host.spawn(self.name(), command)?;
        until(&format!("the service of {} to answer", self.name()), STEP_TIMEOUT, || {
            service.alive()?;
            self.remote()
        })?;
        self.service = Some(service);
        Ok(())
    }

    /// Starts another service beside the one that runs, and waits for its end.
    ///
    /// # Errors
    /// What it said, when it does not end well.
    pub fn service_once(&self) -> Result<String> {
        checked(self.command("partyline-service").arg("run"))
    }

    /// Returns the log of its service.
    ///
    /// # Errors
    /// The service does not run.
    pub fn log(&self) -> Result<String> {
        Ok(self.service.as_ref().context("the service does not run")?.log())
    }

    /// Kills the service without warning.
    ///
    /// # Errors
    /// It does not run.
    pub fn crash(&mut self) -> Result<()> {
        self.service.take().context("the service does not run")?.kill()
    }

    /// Ends the service as the system does.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.service.take().context("the service does not run")?.stop()
    }

    /// Its engine, over the local socket.
    ///
    /// # Errors
    /// The service does not answer.
    pub fn remote(&self) -> Result<Remote> {
        Remote::connect(&Endpoint::in_dir(&self.directory.join("run")))
    }

    /// Lets nothing of the service run, as on a computer that sleeps, until it is [woken](Self::wake).
    ///
    /// # Errors
    /// It does not run.
    pub fn sleep(&self) -> Result<()> {
        self.service.as_ref().context("the service does not run")?.signal(Signal::SIGSTOP)
    }

    /// Lets the service go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn wake(&self) -> Result<()> {
        self.service.as_ref().context("the service does not run")?.signal(Signal::SIGCONT)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.host.command(&self.programs.join(program).to_string_lossy());
        command
            .env("PARTYLINE_STATE_DIR", self.directory.join("state"))
            .env("PARTYLINE_RUNTIME_DIR", self.directory.join("run"));
        let authority = Server::authority(self.host.directory());
        if authority.exists() {
            command.env("PARTYLINE_EXTRA_CA", authority);
        }
        command
    }

    /// Runs `partyline` and gives its standard output.
    ///
    /// # Errors
    /// It does not exit with 0.
    pub fn partyline(&self, arguments: &[&str]) -> Result<String> {
        checked(self.command("partyline").args(arguments))
    }

    /// Creates a party and gives its invite link.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(&self, server: Option<&Server>) -> Result<String> {
        let url = server.map(Server::url);
        let mut arguments = vec!["create", "Friday night", "--name", self.name(), "--json"];
        if let Some(url) = &url {
            arguments.extend(["--server", url]);
        }
        let said = self.partyline(&arguments)?;
        let json: Value = serde_json::from_str(&said).with_context(|| format!("create said {said:?}"))?;
        find_link(&json).with_context(|| format!("no link in {said:?}"))
    }

    /// Joins a party by its link.
    ///
    /// # Errors
    /// It cannot.
    pub fn join(&self, link: &str) -> Result<()> {
        self.partyline(&["join", link, "--name", self.name()]).map(drop)
    }

    /// The engine's snapshot.
    ///
    /// # Errors
    /// The service does not answer.
    pub fn status(&self) -> Result<Snapshot> {
        let said = self.partyline(&["status", "--json"])?;
        serde_json::from_str(&said).with_context(|| format!("status said {said:?}"))
    }

    /// The one party it is in.
    ///
    /// # Errors
    /// It is in none.
    pub fn party(&self) -> Result<PartyView> {
        self.status()?.parties.into_iter().next().context("in no party")
    }

    /// How it sees the member of that name.
    ///
    /// # Errors
    /// It knows none.
    pub fn sees(&self, name: &str) -> Result<MemberView> {
        let party = self.party()?;
        let names: Vec<_> = party.members.iter().map(|member| member.name.clone()).collect();
        let found = party.members.into_iter().find(|member| member.name == name);
        found.with_context(|| format!("{} sees no {name}, only {names:?}", self.name()))
    }

    /// Its address in the party.
    ///
    /// # Errors
    /// It has none yet.
    pub fn address(&self) -> Result<Ipv4Addr> {
        self.sees(self.name())?.address.with_context(|| format!("{} has no address yet", self.name()))
    }

    /// Waits until it reaches `other` by a path of that kind.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_for_path(&self, other: &Self, kind: PathKind) -> Result<()> {
        let what = format!("{} to reach {} by {kind:?}", self.name(), other.name());
        until(&what, CONNECT_TIMEOUT, || {
            let seen = self.sees(other.name())?;
            let found = seen.path.as_ref().map(|path| path.kind);
            that(found == Some(kind), || format!("it is {found:?}; {:?}", seen.path.map(|path| path.why)))
        })
    }

    /// One ICMP echo through the tunnel.
    ///
    /// # Errors
    /// No answer comes.
    pub fn ping(&self, address: Ipv4Addr) -> Result<()> {
        self.host.run("ping", &["-n", "-c", "1", "-W", "2", &address.to_string()]).map(drop)
    }
}

/// The invite link, wherever the answer carries it.
fn find_link(json: &Value) -> Option<String> {
    match json {
        Value::Object(fields) => match fields.get("link") {
            Some(Value::String(link)) => Some(link.clone()),
            _ => fields.values().find_map(find_link),
        },
        _ => None,
    }
}

/// Waits until all members are up and have answered a ping of every other.
///
/// # Errors
/// They do not in time.
pub fn connected(members: &[Member]) -> Result<()> {
    for member in members {
        until(&format!("{} to be up", member.name()), CONNECT_TIMEOUT, || {
            let party = member.party()?;
            let addressed = party.members.iter().filter(|other| other.address.is_some()).count();
            match party.phase {
                PartyPhase::Up if addressed == members.len() => Ok(()),
                phase => {
                    bail!("{phase:?}, {addressed} of {} with address; {:?}", members.len(), party.problem)
                }
            }
        })?;
    }
    for (from, to) in pairs(members) {
        let what = format!("{} to reach {}", from.name(), to.name());
        until(&what, CONNECT_TIMEOUT, || from.ping(to.address()?).with_context(|| why(from, to)))?;
    }
    Ok(())
}

/// Every member with every other, in both orders.
pub fn pairs(members: &[Member]) -> impl Iterator<Item = (&Member, &Member)> {
    members.iter().enumerate().flat_map(move |(index, from)| {
        members.iter().enumerate().filter(move |(other, _)| *other != index).map(move |(_, to)| (from, to))
    })
}

fn why(from: &Member, to: &Member) -> String {
    match from.sees(to.name()) {
        Ok(seen) => format!("online {}, path {:?}", seen.online, seen.path),
        Err(error) => error.to_string(),
    }
}
