//! Which hosts with our key are seen on the local network, and where.
//!
//! Invariants: a host without our key, one at another port, and this host itself are never among them; what is remembered is
//! bounded, whatever strangers announce.

use super::beacon::{Beacon, Lamp};
use crate::model::limits::{SEEN_ADDRESSES, SEEN_HOSTS};
use mdns_sd::{ResolvedService, ScopedIp, ServiceEvent};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// What syncfs is called in DNS-SD.
pub const SERVICE: &str = "_syncfs._tcp.local.";
/// The key of the tag in the TXT record.
pub const TAG: &str = "tag";

pub struct Sightings {
    lamp: Lamp,
    /// What this host says itself.
    pub own: Beacon,
    port: u16,
    hosts: BTreeMap<String, Vec<SocketAddr>>,
}

impl Sightings {
    pub fn new(lamp: Lamp, own: Beacon, port: u16) -> Sightings {
        Sightings { lamp, own, port, hosts: BTreeMap::new() }
    }

    /// Takes in what was heard.
    pub fn hear(&mut self, event: &ServiceEvent) {
        match event {
            ServiceEvent::ServiceResolved(service) => self.see(service),
            ServiceEvent::ServiceRemoved(_, name) => drop(self.hosts.remove(name)),
            _ => {}
        }
    }

    fn see(&mut self, service: &ResolvedService) {
        let name = service.get_fullname();
        let nonce = name.strip_suffix(SERVICE).and_then(|name| name.strip_suffix('.')).unwrap_or_default();
        let tag = service.get_property_val_str(TAG).unwrap_or_default();
        let beacon = Beacon { nonce: nonce.to_owned(), tag: tag.to_owned() };
        if beacon == self.own || !self.lamp.knows(&beacon) {
            return;
        }
        if service.get_port() != self.port {
            tracing::debug!(
                "a host with this key is at port {}, and not at {}",
                service.get_port(),
                self.port
            );
            return;
        }
        if self.hosts.len() >= SEEN_HOSTS && !self.hosts.contains_key(name) {
            return;
        }
        let mut addresses: Vec<SocketAddr> =
            service.get_addresses().iter().filter_map(|ip| address(ip, self.port)).collect();
        addresses.sort_by_key(|address| (rank(address), *address));
        addresses.truncate(SEEN_ADDRESSES);
        self.hosts.insert(name.to_owned(), addresses);
    }

    /// Everywhere that the peer may be, the likeliest first.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = self.hosts.values().flatten().copied().collect();
        addresses.sort_by_key(|address| (rank(address), *address));
        addresses.dedup();
        addresses
    }

    /// The names of those who are seen, as DNS-SD has them.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.hosts.keys()
    }
}

fn address(ip: &ScopedIp, port: u16) -> Option<SocketAddr> {
    match ip {
        ScopedIp::V4(ip) => Some(SocketAddrV4::new(*ip.addr(), port).into()),
        ScopedIp::V6(ip) => {
            let scope = if ip.addr().is_unicast_link_local() { ip.scope_id().index } else { 0 };
            Some(SocketAddrV6::new(*ip.addr(), port, 0, scope).into())
        }
        _ => None,
    }
}

/// What people know their hosts by goes first.
fn rank(address: &SocketAddr) -> u8 {
    match address.ip() {
        IpAddr::V4(ip) if !ip.is_link_local() => 0,
        IpAddr::V6(ip) if !ip.is_unicast_link_local() => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::key::Key;
    use mdns_sd::ServiceInfo;

    fn lamp(key: u8) -> Lamp {
        Lamp::new(&Key::from_bytes([key; 32]))
    }

    fn sightings() -> Sightings {
        Sightings::new(lamp(1), lamp(1).light().unwrap(), 7377)
    }

    fn heard(beacon: &Beacon, addresses: &str, port: u16) -> ServiceEvent {
        let (nonce, tag) = (&beacon.nonce, [(TAG, &beacon.tag)]);
        let info = ServiceInfo::new(SERVICE, nonce, &format!("{nonce}.local."), addresses, port, &tag[..]);
        ServiceEvent::ServiceResolved(Box::new(info.unwrap().as_resolved_service()))
    }

    fn seen(sightings: &Sightings) -> Vec<String> {
        sightings.addresses().iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn only_other_hosts_with_our_key_at_the_port_are_seen() {
        let mut sightings = sightings();
        let own = sightings.own.clone();
        let without_tag = Beacon { tag: String::new(), ..lamp(1).light().unwrap() };
        for (beacon, port) in [
            (own, 7377),
            (lamp(2).light().unwrap(), 7377),
            (lamp(1).light().unwrap(), 7378),
            (without_tag, 7377),
        ] {
            sightings.hear(&heard(&beacon, "10.0.0.9", port));
            assert_eq!(seen(&sightings), [""; 0], "{beacon:?} {port}");
        }
        sightings.hear(&heard(&lamp(1).light().unwrap(), "10.0.0.2", 7377));
        assert_eq!(seen(&sightings), ["10.0.0.2:7377"]);
    }

    #[test]
    fn a_host_that_moves_is_seen_at_its_new_address_and_one_that_goes_no_more() {
        let (mut sightings, beacon) = (sightings(), lamp(1).light().unwrap());
        sightings.hear(&heard(&beacon, "2001:db8::2,10.0.0.2,169.254.0.2", 7377));
        assert_eq!(seen(&sightings), ["10.0.0.2:7377", "[2001:db8::2]:7377", "169.254.0.2:7377"]);
        sightings.hear(&heard(&beacon, "10.0.0.3", 7377));
        assert_eq!(seen(&sightings), ["10.0.0.3:7377"]);
        let name = sightings.names().next().unwrap().clone();
        sightings.hear(&ServiceEvent::ServiceRemoved(SERVICE.to_owned(), name));
        assert_eq!(seen(&sightings), [""; 0]);
    }

    #[test]
    fn a_flood_is_not_remembered() {
        let mut sightings = sightings();
        let many: Vec<String> = (0..200).map(|n| format!("10.0.1.{n}")).collect();
        for _ in 0..100 {
            sightings.hear(&heard(&lamp(1).light().unwrap(), &many.join(","), 7377));
        }
        assert_eq!(sightings.names().count(), SEEN_HOSTS);
        assert!(sightings.hosts.values().all(|addresses| addresses.len() == SEEN_ADDRESSES));
    }
}
