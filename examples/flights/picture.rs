//! Pictures as SVG, and a page that holds them: one file, which needs nothing from elsewhere.

use rivermark::BoxError;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Newark, Kennedy, LaGuardia, in the order of [`ORIGINS`](super::ORIGINS).
pub const AIRPORT_COLOURS: [&str; 3] = ["#2f6fae", "#d9722e", "#3c9a6b"];

/// Colours that can be told apart.
pub const PALETTE: [&str; 10] = [
    "#2f6fae", "#d9722e", "#3c9a6b", "#b83f5e", "#8561b5", "#8f6a4a", "#d98cc0", "#5aa8c9", "#a9ac35",
    "#3d4f7d",
];

/// For what is not to be told apart.
pub const GREY: &str = "#b9bcc2";

/// From nothing to much.
pub const SHADES: [&str; 6] = ["#e6e9ee", "#fbdcb0", "#f6b26b", "#e67a3c", "#c23b22", "#6d1010"];

/// The months of 2013, each with its first day, in days since 1970.
pub fn months() -> impl Iterator<Item = (&'static str, i64)> {
    const JANUARY: i64 = 15_706;
    const NAMES: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const FIRST: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    NAMES.into_iter().zip(FIRST.map(|day| JANUARY + day))
}

/// Which end of a text is at its place.
#[derive(Copy, Clone, Debug)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A place: to the right, and down.
pub type Place = (f64, f64);

/// A picture while it is drawn.
pub struct Picture {
    svg: String,
}

impl Picture {
    pub fn new(width: f64, height: f64) -> Picture {
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#30343b\">\n"
        );
        Picture { svg }
    }

    /// Adds an element. Writing to a string cannot fail.
    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = self.svg.write_fmt(element);
        self.svg.push('\n');
    }

    /// A filled rectangle; `hint` appears under the pointer.
    pub fn rect(&mut self, (x, y): Place, (width, height): (f64, f64), colour: &str, hint: &str) {
        let hint = escaped(hint);
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" fill=\"{colour}\"><title>{hint}</title></rect>"
        ));
    }

    /// A dot; `hint` appears under the pointer.
    pub fn dot(&mut self, (x, y): Place, colour: &str, hint: &str) {
        let hint = escaped(hint);
        self.add(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"><title>{hint}</title></circle>"
        ));
    }

    /// A thick line.
    pub fn stroke(&mut self, from: Place, to: Place, colour: &str) {
        self.between(from, to, colour, 3.0);
    }

    /// A thin line behind what is drawn later.
    pub fn line(&mut self, from: Place, to: Place) {
        self.between(from, to, "#dfe2e7", 1.0);
    }

    fn between(&mut self, from: Place, to: Place, colour: &str, width: f64) {
        self.add(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    /// A line of text on a base line.
    pub fn text(&mut self, (x, y): Place, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        self.add(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
    }

    /// The SVG.
    pub fn finish(mut self) -> String {
        self.svg += "</svg>\n";
        self.svg
    }
}

/// A section of a page.
pub struct Section {
    pub title: &'static str,
    /// What can be seen in the picture.
    pub text: &'static str,
    /// The SVG.
    pub picture: String,
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Flights from New York City, 2013</title>\n\
    <style>body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: #30343b; \
    background: #fff } svg { max-width: 100%; height: auto } h1, h2 { font-weight: 600 }</style></head><body>\n\
    <h1>Flights from New York City, 2013</h1>\n";

/// Writes a page of sections, and answers where it lies.
pub fn write_page(directory: &Path, name: &str, sections: &[Section]) -> Result<PathBuf, BoxError> {
    let mut page = HEAD.to_owned();
    for Section { title, text, picture } in sections {
        write!(page, "<h2>{}</h2>\n<p>{}</p>\n{picture}", escaped(title), escaped(text))?;
    }
    page += "</body></html>\n";
    let path = directory.join(name);
    std::fs::write(&path, page).map_err(|e| format!("writing {}: {e}", path.display()))?;
    Ok(path)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
