//! `natlab` runs labs and scenarios from a terminal. `cargo xtask natlab` builds it with the programs it needs.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use natlab::{Lab, RouterOptions, classify, matrix, party, portmap, roam, serverless, soak, sweep};

/// Runs parties in a small internet made of network namespaces (needs root).
#[derive(Parser)]
#[command(name = "natlab")]
struct Arguments {
    #[command(subcommand)]
    command: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Lists the scenarios.
    List,
    /// Runs the scenarios whose names contain one of the given words.
    Run {
        /// Parts of scenario names.
        #[arg(required = true)]
        names: Vec<String>,
        /// Prints one JSON object at the end.
        #[arg(long)]
        json: bool,
    },
    /// Runs all scenarios.
    Party {
        /// Prints one JSON object at the end.
        #[arg(long)]
        json: bool,
    },
    /// Runs the scenarios of everyday troubles, the kinds of public reports about virtual LANs.
    Everyday {
        /// Prints one JSON object at the end.
        #[arg(long)]
        json: bool,
    },
    /// Tests port mapping on real and fake routers, in all scenarios or the given ones.
    Portmap {
        /// Parts of scenario names.
        names: Vec<String>,
        /// Prints one JSON object at the end.
        #[arg(long)]
        json: bool,
    },
    /// Keeps a port mapped on the router. `portmap` runs this on a member's computer.
    #[command(hide = true)]
    PortmapClient(portmap::ClientArguments),
    /// Checks that netcheck classifies all 27 NAT types and several other networks correctly.
    Classify(classify::Options),
    /// Connects every pair of the 27 NAT types, and reports methods and times.
    Matrix(matrix::Options),
    /// Breaks paths, networks and routers while a game runs, and reports the length of each outage.
    Roam(roam::Options),
    /// Plays the life of a party with one trouble after another; everybody has to come back, and nothing may grow.
    Soak(soak::Options),
    /// Connects parties without any server, by addresses in the link and by the DHT, and reports the times.
    Serverless(serverless::Options),
    /// Builds a lab (a server, the homes of alice, bob and sam, clerk's office, and a LAN of one and two without
    /// internet) and opens a shell on one of its computers.
    Shell {
        /// Computer to open the shell on: server, alice, bob, sam (symmetric NAT), clerk, one or two.
        name: String,
    },
    /// Removes the namespaces and directories of labs whose process was killed.
    Sweep,
}

fn main() -> ExitCode {
    match work(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("natlab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(job: Job) -> Result<ExitCode> {
    match job {
        Job::List => {
            party::scenarios()
                .iter()
                .for_each(|scenario| println!("{:24} {}", scenario.name, scenario.about));
            Ok(ExitCode::SUCCESS)
        }
        Job::Run { names, json } => {
            party::run(|scenario| names.iter().any(|name| scenario.name.contains(name.as_str())), json)
        }
        Job::Party { json } => party::run(|_| true, json),
        Job::Everyday { json } => party::run_everyday(json),
        Job::Portmap { names, json } => portmap::run(&names, json),
        Job::PortmapClient(arguments) => portmap::run_client(&arguments).map(|()| ExitCode::SUCCESS),
        Job::Classify(options) => classify::run(&options),
        Job::Matrix(options) => matrix::run(&options),
        Job::Roam(options) => roam::run(&options),
        Job::Soak(options) => soak::run(&options),
        Job::Serverless(options) => serverless::run(&options),
        Job::Shell { name } => shell(&name),
        Job::Sweep => {
            sweep::sweep()?.iter().for_each(|name| println!("removed {name}"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn shell(name: &str) -> Result<ExitCode> {
    let lab = Lab::new()?;
    let cabin = lab.lonely_lan("cabin")?;
    let hosts = [
        lab.server("server")?,
        lab.home("alice", RouterOptions::HOME)?,
        lab.home("bob", RouterOptions::DUAL_STACK)?,
        lab.home("sam", RouterOptions::SYMMETRIC)?,
        lab.home("clerk", RouterOptions::OFFICE)?,
        cabin.host("one")?,
        cabin.host("two")?,
    ];
    hosts.iter().for_each(|host| eprintln!("{:8} {}", host.name(), host.v4()));
    let host =
        hosts.iter().find(|host| host.name() == name).with_context(|| format!("no computer {name}"))?;
    host.command("sh").status()?;
    Ok(ExitCode::SUCCESS)
}
