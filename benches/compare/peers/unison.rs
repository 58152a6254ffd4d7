//! unison, which looks for changes each second: a client on A, a server on B, joined by a socket, unencrypted.

use super::{Ends, Peer, Side, works};
use crate::rig::Program;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub struct Unison {
    dirs: [PathBuf; 2],
    _client: Program,
    _server: Program,
    _ends: Rc<Ends>,
}

impl Unison {
    pub fn start(ends: Rc<Ends>) -> Unison {
        let (address, port) = (ends.address(Side::B).to_string(), ends.port().to_string());
        // Each side keeps its archive in a directory of its own, as two hosts do.
        let [at_a, at_b] = ["unison-a", "unison-b"].map(|name| format!("UNISON={}", ends.at(name).display()));
        let dirs = [Side::A, Side::B].map(|side| ends.dir(side).to_owned());
        let server = ["env", &at_b, "unison", "-listen", &address, "-socket", &port];
        let server = ends.spawn(Side::B, &server, "unison-b.log");
        ends.listens(Side::B, port.parse().expect("a number"));
        let root = format!("socket://{address}:{port}/{}", dirs[1].display());
        let client = ["env", &at_a, "unison", dirs[0].to_str().expect("text"), &root];
        let options = ["-ui", "text", "-auto", "-batch", "-times", "-repeat", "1"];
        let client = ends.spawn(Side::A, &[&client[..], &options].concat(), "unison-a.log");
        let unison = Unison { dirs, _client: client, _server: server, _ends: ends };
        works(&unison);
        unison
    }
}

impl Peer for Unison {
    fn dir(&self, side: Side) -> &Path {
        &self.dirs[side as usize]
    }
}
