//! The list of app scenarios.

use std::path::Path;

use anyhow::Result;
use natlab::party::World;

mod desk;
mod engine;
mod evening;
mod links;

/// A scenario and its description.
#[derive(Debug)]
pub struct Story {
    /// Name on the command line.
    pub name: &'static str,
    /// One-line description.
    pub about: &'static str,
    /// Runs the scenario in a lab, with the programs in a directory.
    pub run: fn(&World, &Path) -> Result<()>,
}

/// Returns all scenarios.
#[must_use]
pub const fn stories() -> &'static [Story] {
    &[
        Story {
            name: "first-evening",
            about: "first start, create, invite, two friends join, one is removed",
            run: evening::first_evening,
        },
        Story {
            name: "path-change",
            about: "a direct connection falls back to the relay; roster, chart and panel say so",
            run: evening::path_change,
        },
        Story {
            name: "links",
            about: "links that are wrong, ended or taken back, and links opened while the app runs",
            run: links::links,
        },
        Story {
            name: "settings",
            about: "settings count at once and survive a restart; another name reaches friends; servers and relays are tried",
            run: engine::settings,
        },
        Story {
            name: "service",
            about: "the service stops and comes back; the window says so each time",
            run: engine::service,
        },
        Story {
            name: "embedded",
            about: "without a service the app carries the parties itself, and leaves nothing behind",
            run: engine::embedded,
        },
        Story {
            name: "tray",
            about: "the window closes into the tray, whose menu works; notifications; a second start",
            run: desk::tray,
        },
        Story { name: "autostart", about: "starts with the session, without a window", run: desk::autostart },
        Story {
            name: "no-display",
            about: "without a display the app says so and ends",
            run: desk::no_display,
        },
    ]
}
