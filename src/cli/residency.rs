//! `syncfs pin`, `unpin`, `fetch` and `free`: what of a file this host holds.
//!
//! Invariant: of several files each is done by itself, and one that fails does not keep the others from it.

use super::args;
use super::bar::Bar;
use super::client::{self, AT_ONCE, Client};
use super::exit::{Exit, Failure, Outcome, complain, say};
use super::units::bytes;
use crate::api::Order;
use serde_json::Value;
use std::path::Path;

pub fn run(args: &args::Residency, order: Order) -> Outcome {
    let mut exit = Exit::Ok;
    for file in &args.files {
        if let Err(failure) = each(file, order) {
            complain(&failure);
            exit = failure.exit;
        }
    }
    Ok(exit)
}

fn each(file: &Path, order: Order) -> Result<(), Failure> {
    let (client, name) = client::of_file(file)?;
    ask(client, &name, file, order)
        .map_err(|failure| Failure::new(failure.exit, format_args!("{}: {failure}", file.display())))
}

fn ask(mut client: Client, name: &str, file: &Path, order: Order) -> Result<(), Failure> {
    let answer = client.ask(&order.request(name), Some(AT_ONCE))?;
    let shown = file.display();
    match order {
        Order::Pin => match fetch(&mut client, name) {
            Ok(size) => say(format_args!("{shown}: pinned, all of it is here, {}", bytes(size))),
            // The pin stands, and its content comes by itself.
            Err(failure) if failure.exit == Exit::TryAgain => {
                say(format_args!("{shown}: pinned; the rest comes when the peer is there"));
            }
            Err(failure) => return Err(failure),
        },
        Order::Unpin => say(format_args!("{shown}: may go from the cache again")),
        Order::Fetch => {
            let size = fetch(&mut client, name)?;
            say(format_args!("{shown}: all of it is here, {}", bytes(size)));
        }
        Order::Free => {
            let (freed, held) = (number(&answer, "freed"), number(&answer, "held"));
            if held > 0 {
                let why = match answer["state"].as_str() {
                    Some("pending") => "the peer does not have it yet",
                    Some("conflict") => "it is open, or the peer does not have it yet",
                    _ => "it is open",
                };
                let message = format!("{} stay: {why}; try again later", bytes(held));
                return Err(Failure::new(Exit::TryAgain, message));
            }
            say(format_args!("{shown}: {} freed", bytes(freed)));
        }
    }
    Ok(())
}

/// Waits until all of a file is here; returns its size, bytes.
fn fetch(client: &mut Client, name: &str) -> Result<u64, Failure> {
    let mut bar = Bar::new();
    loop {
        let answer = client.ask(&Order::Fetch.request(name), Some(AT_ONCE)).inspect_err(|_| bar.clear())?;
        let (held, size) = (number(&answer, "held"), number(&answer, "size"));
        if held >= size {
            bar.clear();
            return Ok(size);
        }
        bar.show(held, size);
    }
}

fn number(answer: &Value, key: &str) -> u64 {
    answer[key].as_u64().unwrap_or(0)
}
