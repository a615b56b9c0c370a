//! The files of a package, as they will lie in the file system.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::product::Product;
use crate::cargo;

/// A directory that stands for `/`.
pub struct Tree {
    pub root: PathBuf,
    /// Programs in it.
    pub programs: Vec<PathBuf>,
}

/// Where distributions differ.
pub struct Places {
    /// Completions of zsh.
    pub zsh: &'static str,
}

impl Tree {
    /// All that a package of either format has.
    pub fn of(product: &Product, programs: &Path, root: PathBuf, places: &Places) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let mut tree = Self { root, programs: Vec::new() };
        for program in ["partyline", "partyline-service"] {
            tree.program(&programs.join(program))?;
        }
        tree.file("partyline.service", "usr/lib/systemd/system/partyline.service")?;
        tree.file("partyline.rules", "usr/share/polkit-1/rules.d/60-partyline.rules")?;
        tree.completions(&programs.join("partyline"), places)?;
        tree.manual(&programs.join("partyline"))?;
        if product.app {
            tree.app(product, &programs.join("partyline-app"))?;
        }
        Ok(tree)
    }

    fn app(&mut self, product: &Product, program: &Path) -> Result<()> {
        self.program(program)?;
        self.file("partyline.desktop", "usr/share/applications/partyline.desktop")?;
        self.file("partyline-app.1", "usr/share/man/man1/partyline-app.1")?;
        let name = "app.partyline.desktop.metainfo.xml";
        let text = fs::read_to_string(installers().join(name))?;
        let text = text.replace("@VERSION@", &product.version()).replace("@DATE@", &product.date("+%F")?);
        self.write(&format!("usr/share/metainfo/{name}"), text)?;
        self.icons()
    }

    /// The drawing, and pictures for those who draw none.
    fn icons(&self) -> Result<()> {
        for (from, folder, kind) in [
            ("32x32.png", "32x32", "png"),
            ("128x128.png", "128x128", "png"),
            ("128x128@2x.png", "256x256", "png"),
            ("app.svg", "scalable", "svg"),
        ] {
            let to = format!("usr/share/icons/hicolor/{folder}/apps/partyline-app.{kind}");
            self.write(&to, read(&cargo::root().join("icons").join(from))?)?;
        }
        Ok(())
    }

    fn completions(&self, partyline: &Path, places: &Places) -> Result<()> {
        for (shell, to) in [
            ("bash", "usr/share/bash-completion/completions/partyline"),
            ("zsh", places.zsh),
            ("fish", "usr/share/fish/vendor_completions.d/partyline.fish"),
        ] {
            let script = cargo::output(Command::new(partyline).args(["completions", shell]))?;
            self.write(to, script + "\n")?;
        }
        Ok(())
    }

    /// `partyline service` does what `partyline-service` does, so that one page serves both.
    fn manual(&self, partyline: &Path) -> Result<()> {
        let pages = self.root.join("usr/share/man/man1");
        fs::create_dir_all(&pages)?;
        let mut command = Command::new(partyline);
        // The pages must not name the directories of the building user.
        for variable in ["PARTYLINE_STATE_DIR", "PARTYLINE_RUNTIME_DIR"] {
            command.env_remove(variable);
        }
        cargo::output(command.arg("manual").arg(&pages)).map(drop)
    }

    fn program(&mut self, from: &Path) -> Result<()> {
        let name = from.file_name().unwrap_or_default();
        let to = self.root.join("usr/bin").join(name);
        fs::create_dir_all(self.root.join("usr/bin"))?;
        fs::copy(from, &to).with_context(|| format!("copy {}", from.display()))?;
        cargo::output(
            Command::new("strip").args(["--strip-unneeded", "--remove-section=.comment"]).arg(&to),
        )?;
        self.programs.push(to);
        Ok(())
    }

    /// A file of `installers/linux`.
    pub fn file(&self, from: &str, to: &str) -> Result<()> {
        self.write(to, read(&installers().join(from))?)
    }

    /// A file of the given content.
    pub fn write(&self, to: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.root.join(to);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    /// Packs manual pages and sets modes, when everything is in.
    pub fn finish(&self) -> Result<()> {
        for page in files(&self.root.join("usr/share/man"))? {
            cargo::output(Command::new("gzip").arg("-9n").arg(page))?;
        }
        cargo::output(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(&self.root)).map(drop)
    }

    /// The paths of all files below the root, in order.
    pub fn files(&self) -> Result<Vec<String>> {
        let below = |path: PathBuf| Ok(path.strip_prefix(&self.root)?.to_string_lossy().into_owned());
        files(&self.root)?.into_iter().map(below).collect()
    }
}

/// What packages are made of besides programs.
pub fn installers() -> PathBuf {
    cargo::root().join("installers/linux")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}
