//! A picture by hand: what is common to all. Its colours follow the reader's choice of light or dark.

use std::fmt::Write;

/// Colours by name, for light and for dark.
const COLOURS: [(&str, &str, &str); 8] = [
    ("paper", "#ffffff", "#0d1117"),
    ("ink", "#1f2328", "#e6edf3"),
    ("faint", "#d0d7de", "#30363d"),
    ("goal", "#cf222e", "#ff7b72"),
    ("c0", "#0969da", "#58a6ff"),
    ("c1", "#8c959f", "#7d8590"),
    ("c2", "#bf8700", "#d29922"),
    ("c3", "#8250df", "#bc8cff"),
];

pub struct Picture {
    width: f64,
    height: f64,
    body: String,
}

#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Picture {
    pub fn new(width: f64, height: f64) -> Picture {
        Picture { width, height, body: String::new() }
    }

    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, colour: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="var(--{colour})">{text}</text>"#
        );
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.body,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="var(--{colour})" stroke-width="{width}"/>"#
        );
    }

    pub fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{height:.1}" rx="1.5" fill="var(--{colour})"/>"#,
            width.max(0.5)
        );
    }

    pub fn dot(&mut self, (x, y): (f64, f64), colour: &str) {
        let _ = writeln!(self.body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="var(--{colour})"/>"#);
    }

    /// The whole file; `title` is for who does not see it.
    pub fn finished(self, title: &str) -> String {
        let Picture { width, height, body } = self;
        let [light, dark] = [1, 2].map(|which| {
            let colour = |(name, light, dark): &(&str, &str, &str)| {
                format!("--{name}:{};", if which == 1 { light } else { dark })
            };
            COLOURS.iter().map(colour).collect::<String>()
        });
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
             <title>{title}</title>\n\
             <style>:root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>\n{body}</svg>\n"
        )
    }
}
