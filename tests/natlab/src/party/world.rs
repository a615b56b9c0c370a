//! A lab with the real programs: servers, and members with a running service.

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
use partyline_model::{
    Attempt, AttemptOutcome, MemberView, Method, PartyPhase, PartyView, PathKind, Snapshot,
};
use serde_json::{Map, Value};

use super::{Remote, Server};
use crate::{Host, Lab, Line, Process, RouterOptions, checked, until, wait::that};

/// Time limit for starting a service, creating a party and joining one.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// Time limit for members to find a path to each other, for the first time or again.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);

/// Environment variables of a service, by name.
pub type Environment = &'static [(&'static str, &'static str)];

/// Number of lines shown of each log when a scenario fails.
const LAST_LINES: usize = 25;

/// A lab with the programs to run in it.
#[derive(Debug)]
pub struct World {
    /// The lab that the programs run in.
    pub lab: Lab,
    programs: PathBuf,
    figures: Mutex<Map<String, Value>>,
}

impl World {
    /// Creates an empty lab. The programs are those in the directory `PARTYLINE_PROGRAMS`, or else next to this one.
    ///
    /// # Errors
    /// Returns an error if a program is missing, or the lab cannot be created.
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

    /// Starts a server in the lab.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub fn server(&self) -> Result<Server> {
        Server::start(self.lab.server("server")?, self.programs.join("partyline-server"))
    }

    /// Starts a server with two addresses at the end of a line.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub fn far_server(&self, name: &str, line: Line) -> Result<Server> {
        let host = self.lab.open_host(name, line)?;
        let (second, _) = self.lab.second_addresses(&host)?;
        let listen = [host.v4(), second].map(|ip| ["--relay-listen".to_owned(), ip.to_string()]);
        self.server_on(host, listen.concat())
    }

    /// Starts a server with a host name, an IPv4 and an IPv6 address.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub fn named_server(&self, name: &str) -> Result<Server> {
        let host = self.lab.server("server")?;
        let addresses: Vec<IpAddr> =
            [Some(host.v4().into()), host.v6().map(Into::into)].into_iter().flatten().collect();
        self.lab.name(name, &addresses)?;
        let listen = addresses.iter().flat_map(|ip| ["--relay-listen".to_owned(), ip.to_string()]);
        Server::start_as(name.to_owned(), host, self.programs.join("partyline-server"), listen.collect())
    }

    /// Starts a server on a host, under a name that has the host's IPv4 address.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub fn server_at_name(&self, name: &str, host: Host) -> Result<Server> {
        let relay = vec!["--relay-listen".to_owned(), host.v4().to_string()];
        Server::start_as(name.to_owned(), host, self.programs.join("partyline-server"), relay)
    }

    /// Starts a server on a host with these arguments for its relay.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub fn server_on(&self, host: Host, relay: Vec<String>) -> Result<Server> {
        Server::start_with(host, self.programs.join("partyline-server"), relay)
    }

    /// Creates a party with a member on each host, the first as its owner, and waits until all reach each other.
    ///
    /// # Errors
    /// Returns an error if a step fails or times out.
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

    /// Starts a service on a host. The member is in no party yet.
    ///
    /// # Errors
    /// Returns an error if the service does not start.
    pub fn member(&self, host: Host) -> Result<Member> {
        self.member_with(host, &[])
    }

    /// Starts a service with additional environment variables.
    ///
    /// # Errors
    /// Returns an error if the service does not start.
    pub fn member_with(&self, host: Host, environment: Environment) -> Result<Member> {
        let directory = host.directory().join(host.name());
        fs::create_dir_all(&directory)?;
        let mut member =
            Member { host, programs: self.programs.clone(), directory, environment, service: None };
        member.start()?;
        Ok(member)
    }

    /// Returns the path of one of the programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Records a figure for the report.
    pub fn note(&self, name: &str, value: impl Into<Value>) {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value.into());
    }

    /// Returns the figures recorded.
    #[must_use]
    pub fn figures(&self) -> Map<String, Value> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the last lines of every log. The complete logs are copied to `natlab-logs/<scenario>` in the directory
    /// of the programs.
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

/// A member: a host with its service and command line.
#[derive(Debug)]
pub struct Member {
    /// The member's computer.
    pub host: Host,
    programs: PathBuf,
    directory: PathBuf,
    environment: Environment,
    service: Option<Process>,
}

impl Member {
    /// Returns the display name, which is the name of the host.
    #[must_use]
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Starts the service, for the first time or again, and waits until it replies.
    ///
    /// # Errors
    /// Returns an error if it does not.
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

    /// Starts another service beside the running one, waits until it ends, and returns its output.
    ///
    /// # Errors
    /// Returns an error with its output if it does not exit with 0.
    pub fn service_once(&self) -> Result<String> {
        checked(self.command("partyline-service").arg("run"))
    }

    /// Returns the process id of the service.
    ///
    /// # Errors
    /// Returns an error if the service does not run.
    pub fn process_id(&self) -> Result<u32> {
        Ok(self.service.as_ref().context("the service does not run")?.id())
    }

    /// Returns the log of the service.
    ///
    /// # Errors
    /// Returns an error if the service does not run.
    pub fn log(&self) -> Result<String> {
        Ok(self.service.as_ref().context("the service does not run")?.log())
    }

    /// Kills the service with SIGKILL.
    ///
    /// # Errors
    /// Returns an error if it does not run.
    pub fn crash(&mut self) -> Result<()> {
        self.service.take().context("the service does not run")?.kill()
    }

    /// Stops the service with SIGTERM, as the system does.
    ///
    /// # Errors
    /// Returns an error if it does not run, or does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.service.take().context("the service does not run")?.stop()
    }

    /// Stops the service, deletes its state and starts it again, as on a computer where Partyline was just installed.
    ///
    /// # Errors
    /// Returns an error if the service does not stop or start.
    pub fn start_afresh(&mut self) -> Result<()> {
        self.stop()?;
        fs::remove_dir_all(self.directory.join("state"))?;
        self.start()
    }

    /// Connects to the engine over the local socket.
    ///
    /// # Errors
    /// Returns an error if the service does not reply.
    pub fn remote(&self) -> Result<Remote> {
        Remote::connect(&Endpoint::in_dir(&self.directory.join("run")))
    }

    /// Suspends the service, as on a computer that sleeps, until [`wake`](Self::wake) is called.
    ///
    /// # Errors
    /// Returns an error if it does not run.
    pub fn sleep(&self) -> Result<()> {
        self.service.as_ref().context("the service does not run")?.signal(Signal::SIGSTOP)
    }

    /// Resumes the service.
    ///
    /// # Errors
    /// Returns an error if it does not run.
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

    /// Runs `partyline` and returns its standard output.
    ///
    /// # Errors
    /// Returns an error if it does not exit with 0.
    pub fn partyline(&self, arguments: &[&str]) -> Result<String> {
        checked(self.command("partyline").args(arguments))
    }

    /// Creates a party and returns its invite link.
    ///
    /// # Errors
    /// Returns an error if it cannot be created.
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

    /// Makes another invite and gives its link.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn invite(&self) -> Result<String> {
        self.invite_with(&[])
    }

    /// Makes another invite with further arguments of `partyline invite`, and returns its link.
    ///
    /// # Errors
    /// Returns an error if it cannot be made.
    pub fn invite_with(&self, arguments: &[&str]) -> Result<String> {
        let said = self.partyline(&[&["invite", "--json"], arguments].concat())?;
        let json: Value = serde_json::from_str(&said).with_context(|| format!("invite said {said:?}"))?;
        find_link(&json).with_context(|| format!("no link in {said:?}"))
    }

    /// Joins a party by its link.
    ///
    /// # Errors
    /// Returns an error if it cannot join.
    pub fn join(&self, link: &str) -> Result<()> {
        self.partyline(&["join", link, "--name", self.name()]).map(drop)
    }

    /// Asks to join a party by its link, and does not wait until a member has let this one in.
    ///
    /// # Errors
    /// Returns an error if the link is refused at once.
    pub fn ask_to_join(&self, link: &str) -> Result<()> {
        self.partyline(&["join", link, "--name", self.name(), "--no-wait"]).map(drop)
    }

    /// Returns the engine's snapshot.
    ///
    /// # Errors
    /// Returns an error if the service does not reply.
    pub fn status(&self) -> Result<Snapshot> {
        let said = self.partyline(&["status", "--json"])?;
        serde_json::from_str(&said).with_context(|| format!("status said {said:?}"))
    }

    /// Returns the first party that the member is in.
    ///
    /// # Errors
    /// Returns an error if it is in none.
    pub fn party(&self) -> Result<PartyView> {
        self.status()?.parties.into_iter().next().context("in no party")
    }

    /// Returns this member's view of the member with that name.
    ///
    /// # Errors
    /// Returns an error if it does not know such a member.
    pub fn sees(&self, name: &str) -> Result<MemberView> {
        let party = self.party()?;
        let names: Vec<_> = party.members.iter().map(|member| member.name.clone()).collect();
        let found = party.members.into_iter().find(|member| member.name == name);
        found.with_context(|| format!("{} sees no {name}, only {names:?}", self.name()))
    }

    /// Returns the member's own address in the party.
    ///
    /// # Errors
    /// Returns an error if it has none yet.
    pub fn address(&self) -> Result<Ipv4Addr> {
        self.sees(self.name())?.address.with_context(|| format!("{} has no address yet", self.name()))
    }

    /// Waits until the member has a path of that kind to `other`.
    ///
    /// # Errors
    /// Returns an error if it has none within 45 seconds.
    pub fn wait_for_path(&self, other: &Self, kind: PathKind) -> Result<()> {
        let what = format!("{} to reach {} by {kind:?}", self.name(), other.name());
        until(&what, CONNECT_TIMEOUT, || {
            let seen = self.sees(other.name())?;
            let found = seen.path.as_ref().map(|path| path.kind);
            that(found == Some(kind), || format!("it is {found:?}; {:?}", seen.path.map(|path| path.why)))
        })
    }

    /// Waits until a path to `other` was found by that method.
    ///
    /// # Errors
    /// Returns an error if none was within 45 seconds.
    pub fn wait_for_method(&self, other: &Self, method: Method) -> Result<()> {
        let what = format!("{} to reach {} by {method:?}", self.name(), other.name());
        until(&what, CONNECT_TIMEOUT, || {
            let tried = self.sees(other.name())?.path.map(|path| path.why).unwrap_or_default();
            let worked =
                |attempt: &Attempt| attempt.method == method && attempt.outcome == AttemptOutcome::Worked;
            that(tried.iter().any(worked), || format!("{tried:?}"))
        })
    }

    /// Sends one ICMP echo request through the tunnel, and repeats it for two seconds.
    ///
    /// # Errors
    /// Returns an error if no reply arrives.
    pub fn ping(&self, address: Ipv4Addr) -> Result<()> {
        self.host.run("ping", &["-n", "-c", "1", "-w", "2", "-i", "0.2", &address.to_string()]).map(drop)
    }
}

/// Returns the invite link, at any depth of the reply.
fn find_link(json: &Value) -> Option<String> {
    match json {
        Value::Object(fields) => match fields.get("link") {
            Some(Value::String(link)) => Some(link.clone()),
            _ => fields.values().find_map(find_link),
        },
        _ => None,
    }
}

/// Connects a party with one member per home.
pub(super) fn homes(
    world: &World,
    server: &Server,
    names: &[&str],
    options: RouterOptions,
) -> Result<Vec<Member>> {
    let hosts = names.iter().map(|name| world.lab.home(name, options)).collect::<Result<_>>()?;
    world.party(Some(server), hosts)
}

/// Waits until all members are up and have answered a ping from every other member.
///
/// # Errors
/// Returns an error if they have not in time.
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

/// Waits until a member no longer lists the one with that name.
pub(super) fn gone_from(member: &Member, name: &str) -> Result<()> {
    until(&format!("{name} to be gone for {}", member.name()), CONNECT_TIMEOUT, || {
        let party = member.party()?;
        that(party.members.iter().all(|other| other.name != name), || "still listed".into())
    })
}

/// Returns every ordered pair of members.
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
