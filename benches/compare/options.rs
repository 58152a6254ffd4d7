//! What is to be measured, as the command line says it.

/// Measures syncfs beside what is under it and what users would take instead. Takes root.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "benches/run")]
pub struct Options {
    /// Smaller sizes; some minutes instead of a quarter of an hour
    #[arg(long)]
    pub quick: bool,
    /// Only figures whose names begin so, or those of the group of this name
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Beside other tools too, as far as they are installed
    #[arg(long)]
    pub peers: bool,
    /// Put the figures into docs/performance.md and docs/performance/
    #[arg(long)]
    pub write: bool,
    /// What `cargo bench` says.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Whether a figure of this name is wanted.
    pub fn wants(&self, figure: &str) -> bool {
        self.only.as_deref().is_none_or(|only| figure.starts_with(only))
    }

    /// Whether any figure is wanted whose name begins so.
    pub fn wants_of(&self, beginning: &str) -> bool {
        self.wants(beginning) || self.only.as_deref().is_some_and(|only| only.starts_with(beginning))
    }

    /// As they are for a group: it is wanted as a whole if it is what `--only` names.
    pub fn within(&self, group: &str) -> Options {
        let mut options = self.clone();
        options.only.take_if(|only| only == group);
        options
    }

    /// A size or a count: with `--quick` the smaller one.
    pub fn size(&self, full: u64, quick: u64) -> u64 {
        if self.quick { quick } else { full }
    }
}
