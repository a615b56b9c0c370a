//! The matrix as an SVG chart with a square per pair, colored by the time until it had a direct path.

use std::fmt::Write;

use partyline_nat::Rules;

use super::{pair::Outcome, report::Report};

/// Side length of a square in pixels.
const CELL: usize = 20;
/// Space for the names of the types, on the left and at the top, in pixels.
const MARGIN: usize = 76;
/// Number of types with the same mapping behavior, which are adjacent.
const GROUP: usize = 9;

/// The style follows the system's preference for light or dark.
const STYLE: &str = "text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#24292f}\
    .word{font-family:system-ui,sans-serif;font-size:12px}.rule{stroke:#8c959f;stroke-width:1}\
    .s0{fill:#12806a}.s1{fill:#67ad5b}.s2{fill:#e0c341}.s3{fill:#e8943a}.s4{fill:#b35a1f}\
    .relay{fill:#c4cbd3}.missed{fill:#d1242f}.cut{fill:#24292f}.none{fill:none;stroke:#d0d7de}\
    @media(prefers-color-scheme:dark){text{fill:#d7dde4}.rule{stroke:#6e7681}.relay{fill:#444c56}\
    .cut{fill:#f0f3f6}.none{stroke:#30363d}}";

/// CSS class and meaning of each color, in the order of the legend.
const CLASSES: [(&str, &str); 8] = [
    ("s0", "direct within 0.4 s"),
    ("s1", "within 1 s"),
    ("s2", "within 4 s"),
    ("s3", "within 12 s"),
    ("s4", "later"),
    ("relay", "relayed: no direct path is possible"),
    ("missed", "relayed: a direct path is possible"),
    ("cut", "not connected"),
];

/// Draws all results.
pub fn draw(report: &Report) -> String {
    let names: Vec<String> = Rules::all_types(1).map(|rules| rules.short()).collect();
    let side = names.len() * CELL;
    let (width, height) = (MARGIN + side + 8, MARGIN + side + 20 + CLASSES.len().div_ceil(2) * CELL);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\"><title>How soon every pair of NAT types is direct</title>\
         <style>{STYLE}</style>\n"
    );
    for (index, name) in names.iter().enumerate() {
        label(&mut svg, index, name);
    }
    for (row, one) in names.iter().enumerate() {
        for (column, other) in names.iter().enumerate() {
            square(&mut svg, [row, column], find(report, one, other));
        }
    }
    rules(&mut svg, side);
    legend(&mut svg, MARGIN + side + 24);
    svg + "</svg>\n"
}

fn find<'a>(report: &'a Report, one: &str, other: &str) -> Option<&'a Outcome> {
    report
        .outcomes
        .iter()
        .find(|outcome| (outcome.a == one && outcome.b == other) || (outcome.a == other && outcome.b == one))
}

fn label(svg: &mut String, index: usize, name: &str) {
    let at = MARGIN + index * CELL + CELL / 2;
    let (left, above) = (MARGIN - 6, MARGIN - 6);
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\" text-anchor=\"end\">{name}</text>", at + 4);
    let _ = writeln!(svg, "<text transform=\"translate({},{above}) rotate(-90)\">{name}</text>", at + 4);
}

fn square(svg: &mut String, [row, column]: [usize; 2], outcome: Option<&Outcome>) {
    let (x, y, side) = (MARGIN + column * CELL + 1, MARGIN + row * CELL + 1, CELL - 2);
    let class = outcome.map_or("none", class);
    let _ = write!(
        svg,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" rx=\"2\">"
    );
    if let Some(outcome) = outcome {
        let _ = write!(svg, "<title>{}</title>", words(outcome));
    }
    svg.push_str("</rect>\n");
}

fn class(outcome: &Outcome) -> &'static str {
    match (outcome.direct_s, outcome.possible) {
        _ if !outcome.connected => "cut",
        (Some(seconds), _) => match seconds {
            ..=0.4 => "s0",
            ..=1.0 => "s1",
            ..=4.0 => "s2",
            ..=12.0 => "s3",
            _ => "s4",
        },
        (None, true) => "missed",
        (None, false) => "relay",
    }
}

fn words(outcome: &Outcome) -> String {
    let method = outcome.method.map_or(String::new(), |method| format!(" ({method:?})"));
    let direct = match outcome.direct_s {
        Some(seconds) => format!("direct after {seconds:.2} s"),
        None if outcome.connected => "relayed".to_owned(),
        None => "not connected".to_owned(),
    };
    let first = outcome
        .first_packet_s
        .map_or(String::new(), |seconds| format!("; first packet after {seconds:.2} s"));
    format!("{} with {}: {direct}{method}{first}", outcome.a, outcome.b)
}

/// Draws lines between groups of types with the same mapping behavior.
fn rules(svg: &mut String, side: usize) {
    let end = MARGIN + side;
    for at in [GROUP, 2 * GROUP].map(|types| MARGIN + types * CELL) {
        let _ = writeln!(svg, "<path class=\"rule\" d=\"M{at} {MARGIN}V{end}M{MARGIN} {at}H{end}\"/>");
    }
}

fn legend(svg: &mut String, top: usize) {
    let half = CLASSES.len().div_ceil(2);
    for (index, (class, word)) in CLASSES.iter().enumerate() {
        let (x, y) = (MARGIN + index / half * 260, top + index % half * CELL);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"14\" height=\"14\" rx=\"2\"/>\
             <text class=\"word\" x=\"{}\" y=\"{}\">{word}</text>",
            x + 20,
            y + 11
        );
    }
}
