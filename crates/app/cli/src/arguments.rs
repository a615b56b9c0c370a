//! What can be asked, and the help.

use std::{num::NonZeroU8, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ipnet::Ipv4Net;
use partyline_model::{IncomingLevel, InviteLifetime, ServicePort};
use partyline_service::{Place, ServiceCommand, Settings};

const AFTER_HELP: &str = "\
Examples:
  partyline create \"Friday night\"        make a party and print its invite link
  partyline join                         join a friend's party with an invite that you paste
  wl-paste | partyline join -            join with the invite in the clipboard
  partyline invite --expires 7d --qr     another invite, also as a QR code
  partyline status --why                 who is in, how connected, and why so
  partyline ping Ann -c 10               round trips through the tunnel
  partyline netcheck                     what the network does to connections, and what to do
  sudo partyline service install         start the service now and with the computer

A party is named by its name or the first digits of its id, and may be left out where there is only one.
A member is named by its name, its virtual address, or the first digits of its id, which win over names.

Exit codes: 0 ok, 1 failure, 2 usage, 3 service unreachable, 4 not permitted, 5 not found, 6 invite refused, 7 timeout.
With --json the answer is one line of JSON; errors are {\"error\": {\"code\", \"message\", \"hint\"}}.
Environment: PARTYLINE_RUNTIME_DIR, PARTYLINE_LOG (log filter), NO_COLOR.";

/// A virtual LAN for game parties.
#[derive(Debug, Parser)]
#[command(name = "partyline", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more to standard error; twice for the reasons.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
}

impl Arguments {
    /// Returns the arguments that other users of this computer must not see: invites, and passwords of relays.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let words: &[String] = match &self.verb {
            Verb::Join(join) => &join.text,
            Verb::Config(Config { change: Some(ConfigChange::Set { key, values }), .. })
                if key == "relays" =>
            {
                values
            }
            _ => &[],
        };
        words.iter().map(String::as_str)
    }
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a party and print an invite link.
    Create(Create),
    /// Join a party with an invite link.
    Join(Join),
    /// Make another invite link, or list those that can still be used (the owner, or a co-owner).
    Invite(Invite),
    /// Take an invite back, so that nobody joins with it any more (the owner, or a co-owner).
    Revoke(Revoke),
    /// List the parties of this computer.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Leave a party for good.
    Leave(WhichParty),
    /// Remove a member from a party so that it stays removed (the owner, or a co-owner).
    Kick(Kick),
    /// Let a device in that asks to join, or list those that ask (the owner).
    Approve(Approve),
    /// Decline a device that asks to join (the owner).
    Decline(Decline),
    /// Set whether the owner approves every joiner before it is let in (the owner).
    Approval(Approval),
    /// Move a party to another address range (the owner), or ask the owner for one.
    Range(Range),
    /// Show what friends can reach on this computer, or change it.
    ///
    /// As a party comes, friends reach your games and other programs, but no system services: remote login, file sharing,
    /// remote desktop, printing, databases, administration. What this computer asks for is always answered.
    Ports(Ports),
    /// Confirm a server that a friend's invite names, so that it is used at a private address, too.
    ///
    /// Servers that others name are used at addresses of the Internet only, since a private one may be another device of
    /// your network. `partyline status` shows a server that is not used for that reason.
    Trust {
        /// The server's URL, as `partyline status` shows it.
        url: String,
        #[command(flatten)]
        place: Place,
    },
    /// Give this computer a new identity, because another computer has the same keys.
    Identity {
        #[command(subcommand)]
        change: IdentityChange,
    },
    /// Switch a party on.
    Up(Up),
    /// Switch a party off without leaving it.
    Down(WhichParty),
    /// Show parties, members, and how they are connected.
    Status(Status),
    /// Measure round trips to a member through the tunnel.
    Ping(Ping),
    /// Install, run or look at the service.
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// Check everything that commonly goes wrong.
    Doctor {
        #[command(flatten)]
        place: Place,
        /// Instead: what was counted since the service started, as text for Prometheus.
        #[arg(long)]
        metrics: bool,
    },
    /// Measure what the network does to connections, and say what could be better; works without the service too.
    Netcheck(Netcheck),
    /// Show what is set on this computer, or change it.
    Config(Config),
    /// Print a completion script, for example for ~/.local/share/bash-completion/completions/partyline.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Write the manual pages of all commands into a directory, for packages.
    #[command(hide = true)]
    Manual {
        /// An existing directory.
        directory: PathBuf,
    },
    /// Print the version of this program, and of the service if it runs.
    Version {
        #[command(flatten)]
        place: Place,
    },
}

/// Whether and how this process hosts the engine itself.
#[derive(Debug, Args)]
pub struct Hosting {
    /// Run the engine in this process until Ctrl-C, without the service; needs the right to make network devices.
    #[arg(long)]
    pub foreground: bool,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct Create {
    /// The party's name.
    pub name: String,
    /// The name friends will see; by default the one in your settings, or your user name.
    #[arg(long = "name", value_name = "NAME")]
    pub display_name: Option<String>,
    /// Rendezvous server (`wss://host`); can be given several times.
    #[arg(long = "server", value_name = "URL")]
    pub servers: Vec<String>,
    /// Address range, for example 10.80.7.0/24; by default one that collides with nothing here.
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub range: Option<Ipv4Net>,
    /// Show the invite as a QR code too.
    #[arg(long)]
    pub qr: bool,
    /// Go on and show the party until Ctrl-C; hosts the engine if no service runs.
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub hosting: Hosting,
}

#[derive(Debug, Args)]
pub struct Join {
    /// The invite link, or any text with the invite in it; without, or with `-`, it is read from standard input.
    ///
    /// An invite is a secret. As an argument it stays in the history of your shell, and other users of this computer can
    /// see it in the list of processes for a moment, or with sudo for as long as the command runs.
    #[arg(value_name = "INVITE")]
    pub text: Vec<String>,
    /// The name friends will see; by default the one in your settings, or your user name.
    #[arg(long = "name", value_name = "NAME")]
    pub display_name: Option<String>,
    /// Confirm the servers that the invite names, so that they are used at private addresses, too.
    #[arg(long)]
    pub trust_servers: bool,
    /// Return once joined, without waiting until the party is connected.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u32,
    /// Go on and show the party until Ctrl-C; hosts the engine if no service runs.
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub hosting: Hosting,
}

#[derive(Debug, Args)]
pub struct Up {
    /// Which party.
    pub party: Option<String>,
    #[command(flatten)]
    pub hosting: Hosting,
}

#[derive(Debug, Args)]
pub struct WhichParty {
    /// Which party.
    pub party: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct WhichMember {
    /// Which member.
    pub member: String,
    /// In which party.
    #[arg(long)]
    pub party: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct Kick {
    #[command(flatten)]
    pub which: WhichMember,
    /// Also remove everybody who joined by the same link.
    #[arg(long)]
    pub same_link: bool,
    /// Also end all invite links that were made so far (the owner).
    #[arg(long)]
    pub end_links: bool,
}

#[derive(Debug, Args)]
pub struct Invite {
    /// To which party.
    pub party: Option<String>,
    /// How long it can be used.
    #[arg(long, value_enum, default_value = "1d")]
    pub expires: Expires,
    /// How many devices may join by it: a number from 1 to 255, or `any`.
    #[arg(long, value_name = "DEVICES", value_parser = uses, default_value = "10")]
    pub uses: Uses,
    /// Show it as a QR code too.
    #[arg(long)]
    pub qr: bool,
    /// Lets the members that join with it invite and remove members too.
    #[arg(long)]
    pub co_owner: bool,
    /// Make none; list those made on this computer that can still be used.
    #[arg(long, conflicts_with_all = ["expires", "uses", "qr", "co_owner", "watch"])]
    pub list: bool,
    /// Go on and show the party until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct Approve {
    /// Which device, by its name or the first digits of its id; without, those that ask are listed.
    pub joiner: Option<String>,
    /// Of which party.
    #[arg(long)]
    pub party: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct Decline {
    /// Which device, by its name or the first digits of its id.
    pub joiner: String,
    /// Of which party.
    #[arg(long)]
    pub party: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct Approval {
    /// Whether it is needed.
    pub needed: Switch,
    /// In which party.
    #[arg(long)]
    pub party: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// The owner approves every joiner.
    On,
    /// Everybody who has an invite link that has not ended can join.
    Off,
}

/// The number of devices that may join by an invite; `None` for any number.
#[derive(Debug, Clone, Copy)]
pub struct Uses(pub Option<NonZeroU8>);

fn uses(text: &str) -> Result<Uses, String> {
    match text.parse() {
        Ok(uses) => Ok(Uses(Some(uses))),
        Err(_) if text == "any" => Ok(Uses(None)),
        Err(_) => Err("a number from 1 to 255, or `any`".to_owned()),
    }
}

#[derive(Debug, Args)]
pub struct Revoke {
    /// Which invite: the first digits of its id, as `partyline invite --list` shows it.
    pub invite: String,
    /// Of which party.
    #[arg(long)]
    pub party: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct Range {
    /// A private network, for example 10.80.7.0/24; by default one that is free here and where members asked for another.
    #[arg(value_name = "NETWORK", value_parser = network)]
    pub range: Option<Ipv4Net>,
    /// Ask the owner for another range, because this one clashes with a network of this computer.
    #[arg(long, conflicts_with = "range")]
    pub ask: bool,
    /// Which party.
    #[arg(long)]
    pub party: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Ports {
    #[command(subcommand)]
    pub change: Option<PortChange>,
    /// Which party.
    pub party: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Subcommand)]
pub enum PortChange {
    /// Let friends reach ports, whatever the level says.
    Allow(PortList),
    /// Keep friends from reaching ports, whatever the level says.
    Block(PortList),
    /// Forget what was allowed or blocked, so that the level counts again.
    Forget(PortList),
    /// Set what friends reach without that.
    Level {
        /// How much.
        level: Level,
        /// Which party.
        #[arg(long)]
        party: Option<String>,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
pub struct PortList {
    /// Which ports, for example tcp/445 or udp/27015.
    #[arg(required = true, value_name = "PORT")]
    pub ports: Vec<ServicePort>,
    /// Which party.
    #[arg(long)]
    pub party: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Level {
    /// Everything, as in one room.
    Everything,
    /// Everything except system services.
    Games,
    /// Nothing but answers.
    Nothing,
}

impl From<Level> for IncomingLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Everything => Self::Everything,
            Level::Games => Self::Games,
            Level::Nothing => Self::Nothing,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum IdentityChange {
    /// Make new keys. The parties stay with the computer that has the old ones; an invite to each brings this one back.
    New {
        #[command(flatten)]
        place: Place,
    },
    /// Forget a party of an earlier identity.
    Forget {
        /// Which party.
        party: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Expires {
    /// One hour.
    #[value(name = "1h")]
    Hour,
    /// One day.
    #[value(name = "1d")]
    Day,
    /// Seven days.
    #[value(name = "7d")]
    Week,
    /// Until it is revoked.
    Never,
}

impl From<Expires> for InviteLifetime {
    fn from(expires: Expires) -> Self {
        match expires {
            Expires::Hour => Self::Hour,
            Expires::Day => Self::Day,
            Expires::Week => Self::Week,
            Expires::Never => Self::Never,
        }
    }
}

#[derive(Debug, Args)]
pub struct Status {
    /// Only this party.
    pub party: Option<String>,
    /// Show what was tried to reach each member.
    #[arg(long)]
    pub why: bool,
    /// Go on showing changes until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct Netcheck {
    /// STUN or TURN server to ask besides the parties' own (`host:port`); can be given several times.
    #[arg(long, visible_alias = "server", value_name = "HOST:PORT")]
    pub stun: Vec<String>,
    /// Go on, and show the report again whenever the network changes, until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
    /// Measure in this process even if the service runs.
    #[arg(long)]
    pub here: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub timeout: u32,
    /// Servers whose hosts are asked if no others are named.
    #[arg(hide = true, long = "default-server", env = "PARTYLINE_SERVERS", value_delimiter = ',')]
    pub servers: Vec<String>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct Config {
    #[command(subcommand)]
    pub change: Option<ConfigChange>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Subcommand)]
pub enum ConfigChange {
    /// Change one setting; it is kept, and counts at once.
    Set {
        /// Which, as `partyline config` lists them.
        key: String,
        /// To what: on or off, a number, a text, or the members of a list.
        values: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct Ping {
    #[command(flatten)]
    pub which: WhichMember,
    /// How many times.
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// Seconds between them.
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub interval: Duration,
}

fn network(text: &str) -> Result<Ipv4Net, String> {
    text.parse().map_err(|_| "write it with the length of its prefix, such as 10.80.7.0/24".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let allowed = (0.0..=3600.0).contains(&seconds);
    if allowed { Ok(Duration::from_secs_f64(seconds)) } else { Err("from 0 to 3600".into()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn commands_parse_as_documented() {
        for line in [
            "partyline create Friday --name Ann --server wss://a.example --server wss://b.example --range 10.1.2.0/24",
            "partyline join partyline://join/abc --watch",
            "partyline join Come and play: partyline://join/abc tonight --name Ann",
            "partyline join -",
            "partyline join - --trust-servers",
            "partyline trust ws://192.168.1.2:4480",
            "partyline join",
            "partyline invite",
            "partyline invite Friday --expires never --qr",
            "partyline invite --list --json",
            "partyline revoke 1f2e3d4c --party Friday",
            "partyline range 10.90.1.0/24",
            "partyline range --party Friday",
            "partyline range --ask",
            "partyline ports",
            "partyline ports Friday --json",
            "partyline ports allow tcp/445 udp/137 --party Friday",
            "partyline ports block udp/27015",
            "partyline ports forget 445/tcp",
            "partyline ports level games --party Friday",
            "partyline identity new",
            "partyline identity forget Friday",
            "partyline list --json",
            "partyline leave Friday",
            "partyline kick Bob --party Friday",
            "partyline up --foreground",
            "partyline down",
            "partyline status --why --watch --json",
            "partyline ping Bob -c 10 -i 0.2",
            "partyline service run --port 51820",
            "partyline service install --allow-user 1000 --allow-group 100 --port 51820 --extra-ca ca.pem",
            "partyline service status",
            "partyline doctor --runtime-dir /tmp/x",
            "partyline doctor --metrics",
            "partyline completions bash",
            "partyline manual /tmp",
            "partyline service stop",
            "partyline netcheck --json --stun 11.0.0.1:3478 --stun 11.0.0.2:3478",
            "partyline netcheck --watch --server stun.example:3478",
            "partyline config --json",
            "partyline config set port 51820",
            "partyline config set servers wss://a.example wss://b.example",
            "partyline version",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            "partyline create",
            "partyline invite --expires 2d",
            "partyline invite --list --qr",
            "partyline range 10.90.1.0",
            "partyline range 10.90.1.0/24 --ask",
            "partyline identity",
            "partyline ping Bob -c 0",
            "partyline ping Bob -i nan",
            "partyline create x --range 10.1.2.0",
            "partyline config set",
            "partyline dance",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_help_tells_examples_and_exit_codes() {
        let help = Arguments::command().render_long_help().to_string();
        assert!(help.contains("Exit codes: 0 ok"), "{help}");
        assert!(help.contains("partyline ping Ann"), "{help}");
    }
}
