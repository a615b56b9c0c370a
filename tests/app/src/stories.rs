//! What people do with the app.

use std::path::Path;

use anyhow::Result;
use natlab::party::World;

mod desk;
mod engine;
mod evening;
mod links;

/// One story with its end.
#[derive(Debug)]
pub struct Story {
    /// Short, for the command line.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// In a lab, with the programs in a directory.
    pub tell: fn(&World, &Path) -> Result<()>,
}

/// All stories.
#[must_use]
pub const fn stories() -> &'static [Story] {
    &[
        Story {
            name: "first-evening",
            about: "first start, create, invite, two friends join, one is removed",
            tell: evening::first_evening,
        },
        Story {
            name: "path-change",
            about: "a direct connection falls back to the relay; roster, chart and panel say so",
            tell: evening::path_change,
        },
        Story {
            name: "links",
            about: "links that are wrong, ended or taken back, and links opened while the app runs",
            tell: links::links,
        },
        Story {
            name: "settings",
            about: "settings count at once and survive a restart; another name reaches friends; servers and relays are tried",
            tell: engine::settings,
        },
        Story {
            name: "service",
            about: "the service stops and comes back; the window says so each time",
            tell: engine::service,
        },
        Story {
            name: "embedded",
            about: "without a service the app carries the parties itself, and leaves nothing behind",
            tell: engine::embedded,
        },
        Story {
            name: "tray",
            about: "the window closes into the tray, whose menu works; notifications; a second start",
            tell: desk::tray,
        },
        Story {
            name: "autostart",
            about: "starts with the session, without a window",
            tell: desk::autostart,
        },
        Story {
            name: "no-display",
            about: "without a display the app says so and ends",
            tell: desk::no_display,
        },
    ]
}
