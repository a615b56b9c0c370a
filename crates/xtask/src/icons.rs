//! All sizes of the icons in `icons`, drawn from their SVG sources by rsvg-convert.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{cargo, packages};

/// Tray icons are shown at 16 to 48 pixels, larger on dense displays.
const TRAY: u32 = 64;

/// Pictures that packages want by themselves: name and pixels.
const PICTURES: [(&str, u32); 4] =
    [("32x32.png", 32), ("128x128.png", 128), ("128x128@2x.png", 256), ("icon.png", 512)];

/// Pixels of the pictures in a Windows icon.
const ICO: [u32; 6] = [16, 24, 32, 48, 64, 256];

/// Types and pixels of the pictures in a macOS icon; types from 11 on are for dense displays.
const ICNS: [(&[u8; 4], u32); 7] = [
    (b"ic11", 32),
    (b"ic12", 64),
    (b"ic07", 128),
    (b"ic13", 256),
    (b"ic08", 256),
    (b"ic09", 512),
    (b"ic10", 1024),
];

/// Redraws all icons.
pub fn run(yes: bool) -> Result<()> {
    packages::install(&packages::FOR_ICONS, yes)?;
    let icons = cargo::root().join("icons");
    let app = icons.join("app.svg");
    for (name, size) in PICTURES {
        fs::write(icons.join(name), draw(&app, size)?)?;
    }
    let pictures = ICO.iter().map(|size| Ok((*size, draw(&app, *size)?))).collect::<Result<Vec<_>>>()?;
    fs::write(icons.join("icon.ico"), ico(&pictures)?)?;
    let pictures =
        ICNS.iter().map(|(kind, size)| Ok((**kind, draw(&app, *size)?))).collect::<Result<Vec<_>>>()?;
    fs::write(icons.join("icon.icns"), icns(&pictures)?)?;
    let mut count = PICTURES.len() + 2;
    for entry in fs::read_dir(icons.join("tray"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "svg") {
            fs::write(path.with_extension("png"), draw(&path, TRAY)?)?;
            count += 1;
        }
    }
    println!("{count} icons drawn");
    Ok(())
}

fn draw(svg: &Path, size: u32) -> Result<Vec<u8>> {
    let size = size.to_string();
    let output = Command::new("rsvg-convert")
        .args(["--width", &size, "--height", &size, "--format", "png"])
        .arg(svg)
        .output()
        .context("start rsvg-convert")?;
    ensure!(output.status.success(), "{}: {}", svg.display(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}

/// A Windows icon of PNG pictures: a header, an entry of 16 bytes for each picture, the pictures.
fn ico(pictures: &[(u32, Vec<u8>)]) -> Result<Vec<u8>> {
    let count = u16::try_from(pictures.len())?;
    let mut file = [[0, 0], [1, 0], count.to_le_bytes()].concat();
    let mut offset = u32::try_from(6 + 16 * pictures.len())?;
    for (size, picture) in pictures {
        // 256 does not fit and is written as 0.
        let side = (size % 256) as u8;
        let length = u32::try_from(picture.len())?;
        file.extend([side, side, 0, 0, 1, 0, 32, 0]);
        file.extend(length.to_le_bytes());
        file.extend(offset.to_le_bytes());
        offset += length;
    }
    pictures.iter().for_each(|(_, picture)| file.extend(picture));
    Ok(file)
}

/// A macOS icon of PNG pictures: each with its type and length, and the same around all.
fn icns(pictures: &[([u8; 4], Vec<u8>)]) -> Result<Vec<u8>> {
    let chunk = |kind: [u8; 4], bytes: &[u8]| -> Result<Vec<u8>> {
        let length = u32::try_from(bytes.len() + 8)?;
        Ok([&kind[..], &length.to_be_bytes(), bytes].concat())
    };
    let chunks = pictures.iter().map(|(kind, picture)| chunk(*kind, picture)).collect::<Result<Vec<_>>>()?;
    chunk(*b"icns", &chunks.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_point_at_their_pictures() {
        let file = ico(&[(16, vec![1, 2, 3]), (256, vec![4, 5])]).unwrap();
        assert_eq!(&file[..6], [0, 0, 1, 0, 2, 0]);
        assert_eq!((file[6], file[22]), (16, 0));
        assert_eq!(file[18..22], 38_u32.to_le_bytes());
        assert_eq!(file[34..38], 41_u32.to_le_bytes());
        assert_eq!(&file[38..], [1, 2, 3, 4, 5]);
    }

    #[test]
    fn chunks_carry_their_whole_length() {
        let file = icns(&[(*b"ic07", vec![9; 4])]).unwrap();
        assert_eq!(
            file,
            [b"icns".as_slice(), &20_u32.to_be_bytes(), b"ic07", &12_u32.to_be_bytes(), &[9; 4]].concat()
        );
    }
}
