//! syncthing, one on each host, as it is by default but for who may hear of it: the two talk to each other only.

use super::{Ends, Peer, Side, works};
use crate::rig::Program;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub struct Syncthing {
    dirs: [PathBuf; 2],
    _programs: [Program; 2],
    _ends: Rc<Ends>,
}

impl Syncthing {
    pub fn start(ends: Rc<Ends>) -> Syncthing {
        let sides = [Side::A, Side::B];
        let homes = [ends.at("syncthing-a"), ends.at("syncthing-b")];
        let ids = sides.map(|side| {
            let home = format!("--home={}", homes[side as usize].display());
            ends.run(side, &["syncthing", "generate", "--no-default-folder", &home]);
            ends.run(side, &["syncthing", "--device-id", &home]).trim().to_owned()
        });
        let addresses = sides.map(|side| format!("tcp://{}:{}", ends.address(side), ends.port()));
        let programs = sides.map(|side| {
            let home = &homes[side as usize];
            let text = config(&ends, side, &ids, &addresses);
            std::fs::write(home.join("config.xml"), text).expect("written");
            let home = format!("--home={}", home.display());
            // One process, which ends when it is told to: nobody watches over it, and starts it anew.
            let words =
                ["env", "STMONITORED=yes", "syncthing", "serve", "--no-browser", "--no-upgrade", &home];
            ends.spawn(side, &words, ["syncthing-a.log", "syncthing-b.log"][side as usize])
        });
        let dirs = sides.map(|side| ends.dir(side).to_owned());
        let syncthing = Syncthing { dirs, _programs: programs, _ends: ends };
        works(&syncthing);
        syncthing
    }
}

/// What is said of the folder is what a new one has by default.
fn config(ends: &Ends, side: Side, ids: &[String; 2], addresses: &[String; 2]) -> String {
    let members: String = ids.iter().map(|id| format!("<device id=\"{id}\"/>")).collect();
    let devices: String = ids
        .iter()
        .zip(addresses)
        .map(|(id, address)| format!("<device id=\"{id}\"><address>{address}</address></device>"))
        .collect();
    format!(
        "<configuration version=\"36\">\
         <folder id=\"share\" path=\"{}\" type=\"sendreceive\" rescanIntervalS=\"3600\" fsWatcherEnabled=\"true\" \
         fsWatcherDelayS=\"10\">{members}</folder>{devices}\
         <gui enabled=\"false\"></gui>\
         <options><listenAddress>{}</listenAddress><globalAnnounceEnabled>false</globalAnnounceEnabled>\
         <localAnnounceEnabled>false</localAnnounceEnabled><relaysEnabled>false</relaysEnabled>\
         <natEnabled>false</natEnabled><urAccepted>-1</urAccepted><autoUpgradeIntervalH>0</autoUpgradeIntervalH>\
         <crashReportingEnabled>false</crashReportingEnabled><startBrowser>false</startBrowser></options>\
         </configuration>",
        ends.dir(side).display(),
        addresses[side as usize],
    )
}

impl Peer for Syncthing {
    fn dir(&self, side: Side) -> &Path {
        &self.dirs[side as usize]
    }
}
