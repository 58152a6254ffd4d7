//! `syncfs unmount`: what `fusermount3 -u` does, and returns when everything is on the disk.

use super::args;
use super::client::{self, Client};
use super::config;
use super::exit::{Exit, Failure, Outcome, say};
use super::place::Places;
use crate::api::request::Request;
use crate::fs::mount;
use anyhow::Context;

pub fn run(args: args::Unmount) -> Outcome {
    let places = Places::here();
    let dir = config::directory(&args.dir, &places)?;
    let shown = dir.display();
    let socket = places.socket(&dir);
    let failed = || format!("can't reach the daemon of {shown} at {}", socket.display());
    if let Some(client) = Client::connect(&socket).with_context(failed)? {
        // As long as it takes: what is not on the disk yet may be much.
        match client::outlive(client, &Request::post("/unmount"), None) {
            Ok(()) => return Ok(Exit::Ok),
            // A daemon that died under the question has left its mount to us.
            Err(failure) => {
                let died = Client::connect(&socket).with_context(failed)?.is_none();
                if !(died && client::is_mounted(&dir)?) {
                    return Err(failure);
                }
            }
        }
    }
    if !client::is_mounted(&dir)? {
        return Err(Failure::other(format_args!("{shown} is not mounted")));
    }
    // No daemon of ours: a dead mount, or one whose daemon runs where we can't reach it.
    match mount::detach_stale(&dir) {
        Ok(_) => say(format_args!("the daemon of {shown} had died; its mount is gone now")),
        Err(_) => mount::unmount(&dir, false).map_err(Failure::other)?,
    }
    Ok(Exit::Ok)
}
