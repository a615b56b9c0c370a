//! Measures the time to first paint, and the processor time of an idle app.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use natlab::{party::World, until};
use partyline_model::PathKind;
use serde_json::json;

use crate::{
    desktop::{App, Desktop, VIEW_TIMEOUT},
    process_stat::field,
    steps::player,
};

/// Number of measured starts. One more before them warms the disk cache.
const STARTS: usize = 5;
/// Time over which processor time is measured.
const CPU_OBSERVATION: Duration = Duration::from_secs(30);
/// `/proc` counts in hundredths of a second (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Measures the time to first paint, and the idle processor time with a party of three in view and on the start page.
/// Prints one JSON object.
pub fn measure(world: &World, programs: &Path) -> Result<()> {
    let server = world.server()?;
    let anna = player(world, &server, "anna")?;
    anna.partyline(&["config", "set", "display_name", "Anna"])?;
    let link = anna.create(Some(&server))?;
    let mut friends = Vec::new();
    for name in ["ben", "cleo"] {
        let friend = player(world, &server, name)?;
        friend.join(&link)?;
        anna.wait_for_path(&friend, PathKind::Direct)?;
        friends.push(friend);
    }
    let mut desktop = Desktop::start(&anna, programs, 1)?;
    desktop.app(&[])?.close()?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let app = desktop.app(&[])?;
        starts.push(first_paint(&app)?);
        app.close()?;
    }
    starts.sort_by(f64::total_cmp);
    let app = desktop.app(&[])?;
    app.click("button", "Friday night")?;
    app.reads("3 of 3 online")?;
    // For half a minute after a click the page assumes that somebody is watching.
    let watched = idle(&app)?;
    let party = idle(&app)?;
    app.click("button", "Home")?;
    app.reads("Pick a party")?;
    let home = idle(&app)?;
    app.close()?;
    let median = starts[STARTS / 2];
    println!(
        "first paint {median:.2} s warm (median of {STARTS}); of one core {party:.2} % with a party in view \
         ({watched:.2} % while somebody is at the window), {home:.2} % on the start page"
    );
    println!(
        "{}",
        json!({ "app": programs, "first_paint_s": starts, "party_cpu_percent": party,
            "watched_cpu_percent": watched, "home_cpu_percent": home })
    );
    Ok(())
}

/// Returns the seconds from the start of the process to the first contentful paint.
fn first_paint(app: &App) -> Result<f64> {
    let script = "const [paint] = performance.getEntriesByName('first-contentful-paint'); \
                  return paint ? performance.timeOrigin + paint.startTime : null";
    let painted =
        until("the first paint", VIEW_TIMEOUT, || app.run(script)?.as_f64().context("nothing is painted"))?;
    let pid = *app.processes()?.first().context("the app runs not")?;
    let ticks: u32 = field(pid, 21)?.parse()?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let uptime: f64 = uptime.split(' ').next().context("no uptime")?.parse()?;
    let age = uptime - f64::from(ticks) * TICK.as_secs_f64();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    Ok(painted / 1000.0 - (now - age))
}

/// Returns the processor time of the app's processes in percent of one core.
fn idle(app: &App) -> Result<f64> {
    let pids = app.processes()?;
    ensure!(pids.len() > 1, "the page has no process of its own");
    let used = || -> Result<u32> {
        let of = |pid: &u32| {
            Ok::<u32, anyhow::Error>(field(*pid, 13)?.parse::<u32>()? + field(*pid, 14)?.parse::<u32>()?)
        };
        pids.iter().map(of).sum()
    };
    let before = used()?;
    thread::sleep(CPU_OBSERVATION);
    let ticks = used()? - before;
    Ok(100.0 * f64::from(ticks) * TICK.as_secs_f64() / CPU_OBSERVATION.as_secs_f64())
}
