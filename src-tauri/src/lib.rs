//! The desktop app: a window on the engine, a tray, deep links, notifications. No network logic.
//!
//! `arguments` is the command line; `engine` keeps the connection to the engine, in the service or in this process;
//! `surface` and `commands` are what the user interface sees, exported to TypeScript by `bindings`;
//! `shell` joins them with the `window`, the `tray` and `announce`.

mod announce;
mod arguments;
mod autostart;
mod bindings;
mod clipboard;
mod commands;
mod diagnostics;
mod display;
mod engine;
#[cfg(target_os = "linux")]
mod graphics;
mod links;
mod preferences;
mod shell;
mod surface;
mod transfer;
mod tray;
mod window;
mod words;

pub use shell::run;
