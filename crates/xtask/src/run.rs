//! From a fresh clone to a party: builds, starts what is needed, and opens the app; without a display, creates a party and
//! shows it live in the terminal.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    app, cargo, natlab,
    packages::{self, as_root},
};

/// The port of the server that is started here.
const PORT: u16 = 4480;

/// How long a program gets until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How to run.
#[derive(Args)]
pub struct Options {
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
    /// Build with optimisations, which takes longer.
    #[arg(long)]
    release: bool,
    /// Rendezvous server to use (wss://…); without it, one is started here.
    #[arg(long, env = "PARTYLINE_SERVERS")]
    server: Option<String>,
    /// The name friends see.
    #[arg(long, env = "USER", default_value = "me")]
    name: String,
    /// The party's name.
    #[arg(long, default_value = "Friday night")]
    party: String,
    /// Stay in the terminal even where there is a display.
    #[arg(long)]
    terminal: bool,
}

/// Runs until the app or the live view is left; what was started for it ends then.
pub fn run(options: &Options) -> Result<()> {
    let window = !options.terminal && has_display();
    packages::install(&packages::FOR_RUN, options.yes)?;
    if window {
        packages::install(&packages::FOR_APP, options.yes)?;
        app::build_ui()?;
    }
    let programs = build(options.release, window)?;
    let place = Place::new(programs)?;
    let (server, _running) = match &options.server {
        Some(url) => (url.clone(), None),
        None => place.start_server(own_address()).map(|(url, running)| (url, Some(running)))?,
    };
    let _service = place.start_service(&server)?;
    println!("In another terminal, `partyline` is {}", place.shown_partyline());
    if window {
        println!("Quit from the tray or by closing the window; the party ends then.");
        return cargo::run(&mut place.command("partyline-app"));
    }
    let show = if place.has_party()? {
        vec!["invite", "--watch"]
    } else {
        vec!["create", &options.party, "--name", &options.name, "--server", &server, "--watch"]
    };
    // An invite can be made only of one party, and only by its owner; all can be watched.
    cargo::run(place.partyline().args(show))
        .or_else(|_| cargo::run(place.partyline().args(["status", "--watch"])))
}

/// This computer's address on its network, where friends beside us reach it. Connecting a UDP socket sends nothing; it only
/// asks the routing table.
fn own_address() -> IpAddr {
    let asked = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    asked.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}

/// Whether there is a display to open a window on.
fn has_display() -> bool {
    let set = |variable| env::var_os(variable).is_some_and(|value| !value.is_empty());
    set("DISPLAY") || set("WAYLAND_DISPLAY")
}

fn build(release: bool, window: bool) -> Result<PathBuf> {
    let mut command = cargo::command(["build"]);
    command.args(natlab::PROGRAMS).args(release.then_some("--release"));
    if window {
        command.args(app::PROGRAM);
    }
    cargo::run(&mut command)?;
    Ok(cargo::target().join(if release { "release" } else { "debug" }))
}

/// Programs, and the folder that keeps this clone's parties apart from those of an installed Partyline.
struct Place {
    programs: PathBuf,
    folder: PathBuf,
}

/// A program that ends when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // By SIGTERM, so that it takes its network device down; sudo passes it on.
        cargo::succeeds(as_root("kill").arg(self.0.id().to_string()));
        let _ = self.0.wait();
    }
}

impl Place {
    fn new(programs: PathBuf) -> Result<Self> {
        let folder = cargo::root().join("target/run");
        fs::create_dir_all(&folder)?;
        Ok(Self { programs, folder })
    }

    fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// How to call the client from the workspace's directory.
    fn shown_partyline(&self) -> String {
        let runtime = self.folder.join("runtime");
        format!("PARTYLINE_RUNTIME_DIR={} {}", shown(&runtime), shown(&self.program("partyline")))
    }

    fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("PARTYLINE_STATE_DIR", self.folder.join("state")),
            ("PARTYLINE_RUNTIME_DIR", self.folder.join("runtime")),
        ]
    }

    fn partyline(&self) -> Command {
        self.command("partyline")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.program(program));
        command.envs(self.variables());
        command
    }

    /// Starts a server without TLS, since there is no certificate for such an address; messages between members are encrypted
    /// all the same.
    fn start_server(&self, own: IpAddr) -> Result<(String, Running)> {
        let address = SocketAddr::new(own, PORT);
        let mut command = lasting_as_long_as_we(Command::new("setpriv"));
        command.arg(self.program("partyline-server")).arg("--listen").arg(address.to_string());
        command.args(["--insecure-plain", "--relay-listen", &own.to_string()]);
        command.args(own.is_loopback().then_some("--dev"));
        let answers = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
        if answers() {
            bail!("another program uses {address}; end it, or name a server with --server");
        }
        Ok((format!("ws://{address}"), self.start("server", command, answers)?))
    }

    /// Making network devices takes root; where we are not, sudo is asked for this program alone.
    fn start_service(&self, server: &str) -> Result<Running> {
        let variables = self.variables().map(|(name, path)| format!("{name}={}", path.display()));
        let mut command = lasting_as_long_as_we(as_root("setpriv"));
        command.arg("env").args(variables).arg(self.program("partyline-service")).arg("run");
        command.args(["--default-server", server]);
        command.args(["--allow-user", &cargo::output(Command::new("id").arg("-u"))?]);
        self.start("service", command, || cargo::succeeds(self.partyline().args(["status", "--json"])))
    }

    fn start(&self, name: &str, mut command: Command, ready: impl Fn() -> bool) -> Result<Running> {
        let log = self.folder.join(format!("{name}.log"));
        eprintln!("Starting the {name} (its log: {})", shown(&log));
        let file = fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut running = Running(command.spawn().with_context(|| format!("start the {name}"))?);
        let deadline = Instant::now() + START_TIMEOUT;
        while !ready() {
            if let Some(status) = running.0.try_wait()? {
                bail!("the {name} ended with {status}:\n{}", fs::read_to_string(&log)?);
            }
            if Instant::now() > deadline {
                bail!("the {name} does not answer:\n{}", fs::read_to_string(&log)?);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(running)
    }

    /// Whether an earlier run left a party, which the service then brings back.
    fn has_party(&self) -> Result<bool> {
        let said = cargo::output(self.partyline().args(["status", "--json"]))?;
        Ok(!said.replace(' ', "").contains("\"parties\":[]"))
    }
}

/// However we end, `setpriv` has the kernel end what it starts.
fn lasting_as_long_as_we(mut setpriv: Command) -> Command {
    setpriv.args(["--pdeathsig", "TERM"]);
    setpriv
}

fn shown(path: &Path) -> String {
    path.strip_prefix(cargo::root()).unwrap_or(path).display().to_string()
}
