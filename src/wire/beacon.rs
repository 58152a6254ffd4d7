//! What a host says of itself on the local network, and how one that holds the same key knows it.
//!
//! A nonce, new with each daemon, and a tag that only holders of the key can make of it.
//!
//! Invariants: to who lacks the key both are random, tell nothing of it, and not which hosts belong together. To who holds it
//! a tag says no more than whom to dial: anybody can repeat what he heard, so the proof stays with TLS.

use super::key::Key;
use super::system;
use hkdf::Hkdf;
use sha2::Sha256;
use std::io;

/// Bytes of a nonce and of a tag; both are said in hexadecimal digits.
const BYTES: usize = 16;
const LABEL: &[u8] = b"syncfs beacon v1";

/// Makes tags, and checks them.
pub struct Lamp(Key);

/// What one host says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    pub nonce: String,
    pub tag: String,
}

impl Lamp {
    pub fn new(key: &Key) -> Lamp {
        Lamp(key.derive(LABEL))
    }

    /// A new one.
    ///
    /// # Errors
    /// Where the system gives no random numbers.
    pub fn light(&self) -> io::Result<Beacon> {
        let mut nonce = [0; BYTES];
        system::random(&mut nonce)?;
        let nonce = hex(&nonce);
        Ok(Beacon { tag: self.tag(&nonce), nonce })
    }

    /// Whether it was made with the same key.
    pub fn knows(&self, beacon: &Beacon) -> bool {
        self.tag(&beacon.nonce) == beacon.tag
    }

    fn tag(&self, nonce: &str) -> String {
        let mut tag = [0; BYTES];
        let hkdf = Hkdf::<Sha256>::new(None, self.0.bytes());
        hkdf.expand(nonce.as_bytes(), &mut tag).expect("a few bytes are always to be had");
        hex(&tag)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_what_the_protocol_page_shows() {
        let lamp = Lamp::new(&Key::from_bytes([7; 32]));
        assert_eq!(lamp.tag(&"0".repeat(32)), "62ba8ce11401fee6ae60002bbdee00fa");
    }

    #[test]
    fn only_who_holds_the_key_knows_a_beacon() {
        let [ours, same, other] = [1, 1, 2].map(|byte| Lamp::new(&Key::from_bytes([byte; 32])));
        let (beacon, another) = (ours.light().unwrap(), ours.light().unwrap());
        assert!(same.knows(&beacon) && !other.knows(&beacon));
        assert_ne!(
            (&beacon.nonce, &beacon.tag),
            (&another.nonce, &another.tag),
            "they have nothing in common"
        );
        let forged = Beacon { nonce: another.nonce, ..beacon };
        assert!(!same.knows(&forged));
    }
}
