//! A computer of the lab with a display, a session bus and the app in its window.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use natlab::{
    Host, Process, checked,
    party::{Member, Server},
    until,
};
use serde_json::{Value, json};

use crate::{panel::Panel, process_stat::field, webdriver::Session};

/// Time limit for the window to open, and for expected contents to appear in it. It is generous, since no test measures
/// time with it.
pub const VIEW_TIMEOUT: Duration = Duration::from_secs(60);

/// Size of the display. The largest window that is tested has to fit.
const SCREEN: &str = "2600x1500x24";

/// Finds the visible element with a role and an accessible name, as a user would.
const FIND: &str = r"
const [role, name] = arguments;
const tags = { button: 'button,[role=button]', menuitem: '[role=menuitem]', tab: '[role=tab]', field: 'input,textarea',
  radio: '[role=radio],input[type=radio]', switch: '[role=switch]', any: '*' };
const shown = (one) => one.checkVisibility ? one.checkVisibility() : one.offsetParent !== null;
const text = (one) => {
  const by = one.getAttribute('aria-labelledby');
  const label = one.labels && one.labels.length ? one.labels[0].innerText : '';
  const labelled = by ? by.split(' ').map((id) => document.getElementById(id)?.innerText ?? '').join(' ') : '';
  return (one.getAttribute('aria-label') || labelled || label || one.innerText || '').replace(/\s+/g, ' ').trim();
};
const all = [...document.querySelectorAll(tags[role])].filter(shown);
return all.find((one) => text(one) === name) ?? all.find((one) => text(one).startsWith(name))
  ?? all.find((one) => text(one).includes(name)) ?? null;
";

/// The Enter key as WebDriver encodes it.
pub const ENTER: char = '\u{e007}';

/// A desktop session: display, session bus and window manager.
#[derive(Debug)]
pub struct Desktop {
    host: Host,
    home: PathBuf,
    programs: PathBuf,
    display: String,
    service: Vec<(String, PathBuf)>,
    /// True if the app may create network devices itself.
    rights: bool,
    driver: u16,
    running: Vec<Process>,
}

impl Desktop {
    /// Starts a session on the computer of a member, whose service the app uses. `number` distinguishes sessions.
    ///
    /// # Errors
    /// Returns an error if a program is missing or does not start.
    pub fn start(member: &Member, programs: &Path, number: u16) -> Result<Self> {
        let home = member.host.directory().join(format!("{}-desktop", member.name()));
        let run = home.join("run");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&run)?;
        let mut desktop = Self {
            host: member.host.clone(),
            home,
            programs: programs.to_owned(),
            display: format!(":{}", 400 + u32::from(number) + std::process::id() % 500 * 4),
            service: Self::service_of(member),
            rights: false,
            driver: 4444 + number,
            running: Vec::new(),
        };
        desktop.open()?;
        Ok(desktop)
    }

    /// Returns the environment variables that lead to the member's service.
    fn service_of(member: &Member) -> Vec<(String, PathBuf)> {
        let place = member.host.directory().join(member.name());
        let at = |variable: &str, directory: &str| (variable.to_owned(), place.join(directory));
        let authority = ("PARTYLINE_EXTRA_CA".to_owned(), Server::authority(member.host.directory()));
        let mut places = vec![at("PARTYLINE_STATE_DIR", "state"), at("PARTYLINE_RUNTIME_DIR", "run")];
        places.extend(authority.1.exists().then_some(authority));
        places
    }

    fn open(&mut self) -> Result<()> {
        let mut xvfb = self.command("Xvfb");
        xvfb.args([&self.display, "-screen", "0", SCREEN, "-nolisten", "tcp", "-noreset"]);
        self.launch("xvfb", xvfb)?;
        let shown = format!("/tmp/.X11-unix/X{}", &self.display[1..]);
        until("the display", VIEW_TIMEOUT, || {
            fs::metadata(&shown).map(drop).with_context(|| format!("there is no {shown}"))
        })?;
        let mut bus = self.command("dbus-daemon");
        bus.args(["--session", "--nofork", "--nopidfile", "--address"]).arg(self.bus());
        self.launch("bus", bus)?;
        until("the session bus", VIEW_TIMEOUT, || {
            fs::metadata(self.home.join("run/bus")).map(drop).context("it has no socket")
        })?;
        let openbox = self.command("openbox");
        self.launch("openbox", openbox)
    }

    fn launch(&mut self, name: &str, command: Command) -> Result<()> {
        let process = self.host.spawn(&format!("{}-{name}", self.host.name()), command)?;
        self.running.push(process);
        Ok(())
    }

    /// Allows the app to create network devices itself from now on, as on a computer without a service.
    pub const fn grant(&mut self) {
        self.rights = true;
    }

    /// Connects a panel with a tray and notifications to this session's bus.
    ///
    /// # Errors
    /// Returns an error if the bus refuses the connection.
    pub fn panel(&self) -> Result<Panel> {
        Panel::new(&self.bus())
    }

    /// Returns the path of a file in the session's configuration directory.
    #[must_use]
    pub fn config(&self, file: &str) -> PathBuf {
        self.home.join(".config").join(file)
    }

    /// Returns true if the app's window is visible.
    ///
    /// # Errors
    /// Returns an error if xdotool cannot be started.
    pub fn shows_window(&self) -> Result<bool> {
        let mut search = self.command("xdotool");
        let found = search.args(["search", "--onlyvisible", "--name", "^Partyline$"]).output()?;
        Ok(!found.stdout.is_empty())
    }

    /// Closes the window in front by the window manager's keyboard shortcut.
    ///
    /// # Errors
    /// Returns an error if the display does not respond.
    pub fn close_window(&self) -> Result<()> {
        checked(self.command("xdotool").args(["key", "alt+F4"])).map(drop)
    }

    fn bus(&self) -> String {
        format!("unix:path={}", self.home.join("run/bus").display())
    }

    /// Returns a command that runs a program in this session.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.host.command(program);
        command
            .env("HOME", &self.home)
            .env("XDG_CONFIG_HOME", self.config(""))
            .env("XDG_DATA_HOME", self.home.join("data"))
            .env("XDG_CACHE_HOME", self.home.join("cache"))
            .env("XDG_RUNTIME_DIR", self.home.join("run"))
            .env("DBUS_SESSION_BUS_ADDRESS", self.bus())
            .env("DISPLAY", &self.display)
            .env("GDK_BACKEND", "x11")
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .env("NO_AT_BRIDGE", "1")
            .env("LANG", "C.UTF-8")
            // WebKit running as root would need a sandbox of namespaces inside the lab's.
            .env("WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS", "1")
            .env("USER", self.host.name())
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("SUDO_USER")
            .envs(self.service.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Returns the path of the app.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.programs.join("partyline-app")
    }

    /// Starts the app and connects to its window.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub fn app(&mut self, arguments: &[&str]) -> Result<App> {
        self.driver += 100;
        let mut driver = self.command("setpriv");
        driver.args((!self.rights).then_some("--bounding-set=-net_admin")).arg("WebKitWebDriver");
        driver.arg(format!("--port={}", self.driver)).env("TAURI_WEBVIEW_AUTOMATION", "true");
        let mut process = self.host.spawn(&format!("{}-app", self.host.name()), driver)?;
        let session = until("the app's window", VIEW_TIMEOUT, || {
            process.alive()?;
            Session::open(&self.host, self.driver, &self.program(), arguments)
        })?;
        let app = App { session, driver: process };
        until("the app's page", VIEW_TIMEOUT, || app.look(|text| !text.is_empty()))?;
        Ok(app)
    }

    /// Starts the app again while it runs, as a click on a link does. The second process hands over its arguments and
    /// ends.
    ///
    /// # Errors
    /// Returns an error if it does not exit with 0.
    pub fn start_again(&self, link: Option<&str>) -> Result<String> {
        checked(self.command(&self.program().to_string_lossy()).args(link))
    }
}

/// The app in its window, controlled by WebDriver.
#[derive(Debug)]
pub struct App {
    session: Session,
    driver: Process,
}

impl App {
    /// Returns the visible text of the window.
    ///
    /// # Errors
    /// Returns an error if the window does not respond.
    pub fn text(&self) -> Result<String> {
        let said = self.session.run("return document.body.innerText", &[])?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    /// Checks the window's text.
    ///
    /// # Errors
    /// Returns an error with the text if the check fails.
    pub fn look(&self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let text = self.text()?;
        if wanted(&text) { Ok(()) } else { bail!("the window says:\n{text}") }
    }

    /// Waits until the window's text contains `wanted`.
    ///
    /// # Errors
    /// Returns an error if it does not in time.
    pub fn reads(&self, wanted: &str) -> Result<()> {
        until(&format!("the window to say {wanted:?}"), VIEW_TIMEOUT, || {
            self.look(|text| text.contains(wanted))
        })
    }

    /// Waits until the window's text no longer contains `unwanted`.
    ///
    /// # Errors
    /// Returns an error if it still does at the time limit.
    pub fn no_longer_reads(&self, unwanted: &str) -> Result<()> {
        until(&format!("the window to drop {unwanted:?}"), VIEW_TIMEOUT, || {
            self.look(|text| !text.contains(unwanted))
        })
    }

    /// Clicks the element with that role (`button`, `menuitem`, `tab`, `radio`, `switch`) and name.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn click(&self, role: &str, name: &str) -> Result<()> {
        until(&format!("to click {role} {name:?}"), VIEW_TIMEOUT, || {
            self.session.click(&self.find(role, name)?)
        })
    }

    /// Replaces the text of the field with that name.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn fill(&self, name: &str, text: &str) -> Result<()> {
        until(&format!("to fill in {name:?}"), VIEW_TIMEOUT, || {
            self.session.write(&self.find("field", name)?, text)
        })
    }

    /// Types over the selected text of the field with that name, which is never empty in between.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn replace(&self, name: &str, text: &str) -> Result<()> {
        until(&format!("to write into {name:?}"), VIEW_TIMEOUT, || {
            let field = self.find("field", name)?;
            self.session.run("arguments[0].focus(); arguments[0].select()", std::slice::from_ref(&field))?;
            self.session.keys(&field, text)
        })
    }

    /// Returns the text of the field with that name.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn value(&self, name: &str) -> Result<String> {
        let value = self.session.run("return arguments[0].value", &[self.find("field", name)?])?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    }

    /// Returns true if there is an element with that role and name.
    ///
    /// # Errors
    /// Returns an error if the window does not respond.
    pub fn has(&self, role: &str, name: &str) -> Result<bool> {
        Ok(!self.session.run(FIND, &[json!(role), json!(name)])?.is_null())
    }

    fn find(&self, role: &str, name: &str) -> Result<Value> {
        let found = self.session.run(FIND, &[json!(role), json!(name)])?;
        if found.is_null() {
            bail!("there is no {role} {name:?}; the window says:\n{}", self.text()?);
        }
        Ok(found)
    }

    /// Runs a script in the page and returns its result.
    ///
    /// # Errors
    /// Returns an error if the script throws.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.session.run(script, &[])
    }

    /// Returns the ids of the app's process and its descendants.
    ///
    /// # Errors
    /// Returns an error if processes cannot be listed.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, field(pid, 3).ok()?.parse().ok()?)))
            .collect();
        let children = |of: u32| parents.iter().filter(move |(_, parent)| *parent == of).map(|(pid, _)| *pid);
        let mut family: Vec<u32> = children(self.driver.id()).collect();
        let mut next = 0;
        while let Some(pid) = family.get(next) {
            family.extend(children(*pid).collect::<Vec<_>>());
            next += 1;
        }
        Ok(family)
    }

    /// Sets the size of the window.
    ///
    /// # Errors
    /// Returns an error if the window is gone.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        self.session.resize(width, height)
    }

    /// Returns a screenshot of the window as PNG.
    ///
    /// # Errors
    /// Returns an error if it cannot be taken.
    pub fn screenshot(&self) -> Result<Vec<u8>> {
        self.session.screenshot()
    }

    /// Ends the app and waits until its processes are gone, so that the next start does not find a running instance.
    ///
    /// # Errors
    /// Returns an error if a process does not end.
    pub fn close(self) -> Result<()> {
        let family = self.processes()?;
        self.session.close()?;
        self.driver.stop()?;
        // The driver may leave the app running when its session ends.
        for pid in family.iter().filter(|pid| field(**pid, 2).is_ok()) {
            Command::new("kill").arg(pid.to_string()).output()?;
        }
        until("the app to end", VIEW_TIMEOUT, || {
            let left = family.iter().find(|pid| field(**pid, 2).is_ok_and(|state| state != "Z"));
            ensure!(left.is_none(), "process {left:?} goes on");
            Ok(())
        })
    }
}
