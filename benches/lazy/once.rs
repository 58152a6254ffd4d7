//! What several readers want crosses once, and what they want of different files does not cross more than that.

use crate::figures::{MIB, scaled, timed};
use crate::hosts::Hosts;
use crate::link::{Link, Yardstick};
use crate::pattern::Pattern;
use crate::sequential::read;

pub fn run(link: &Link, yardstick: &Yardstick) {
    let size = scaled(100 * MIB);
    let mut hosts = Hosts::new(link, 20 * size);
    let files: Vec<Pattern> = (0..11).map(|seed| Pattern::dense(seed, size)).collect();
    let path = |dir: &std::path::Path, file: &Pattern| dir.join(format!("file {}", file.seed));
    files.iter().for_each(|file| file.write(&path(&hosts.a.dir, file)));
    hosts.start(files.len());
    let both = [&files[0], &files[0]];
    let ten: Vec<&Pattern> = files[1..].iter().collect();
    for (what, readers, content) in [("2 of one file", &both[..], size), ("10 of ten", &ten, 10 * size)] {
        let digests: Vec<u64> = readers.iter().map(|file| file.digest()).collect();
        let before = hosts.received();
        let ((), time) = timed(|| {
            std::thread::scope(|scope| {
                for (file, digest) in readers.iter().zip(&digests) {
                    let path = path(&hosts.b.dir, file);
                    scope.spawn(move || {
                        assert_eq!(read(&path, size), *digest, "what was read is what was written")
                    });
                }
            });
        });
        let received = (hosts.received() - before) as f64 / content as f64;
        let speed = content as f64 / time.as_secs_f64();
        println!(
            "  readers: {what}, of {:.0} MB: received {received:.3} of the content, {:.1} MB/s together, \
             {:.0} % of plain TCP",
            size as f64 / 1e6,
            speed / 1e6,
            speed * 100.0 / yardstick.throughput,
        );
    }
    hosts.end();
}
