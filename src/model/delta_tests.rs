use super::super::codec;
use super::*;
use proptest::prelude::*;

/// Bytes that do not repeat, told by `seed`.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(|| step() as u8).take(len).collect()
}

fn assemble(parts: &[Part], basis: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Part::Bytes(new) => bytes.extend_from_slice(new),
            Part::Copy { from, len } => {
                bytes.extend_from_slice(&basis[*from as usize..(*from + *len) as usize])
            }
        }
    }
    bytes
}

fn new_bytes(parts: &[Part]) -> u64 {
    parts.iter().filter(|p| matches!(p, Part::Bytes(_))).map(Part::len).sum()
}

/// All of `content`, asked for in spans of `span` bytes by who has `basis`: what of it is new.
fn transfer(basis: &[u8], content: &[u8], span: usize) -> u64 {
    let index = Index::new(Signature::of(basis));
    let block = index.block() as usize;
    let (mut at, mut new) = (0, 0);
    while at < content.len() {
        let end = (at + span).min(content.len());
        let around = at.saturating_sub(block)..(end + block).min(content.len());
        let parts = index.scan(&content[around.clone()], at - around.start..end - around.start);
        let made = assemble(&parts, basis);
        assert!(!made.is_empty() && made == content[at..at + made.len()], "wrong from byte {at} on");
        assert!(at + made.len() == end || made.len().is_multiple_of(CHUNK as usize));
        new += new_bytes(&parts);
        at += made.len();
    }
    new
}

/// A basis, and what somebody made of it.
fn edited() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let edit = (any::<prop::sample::Index>(), 0..3_000usize, 0..3_000usize, any::<u64>());
    // Of few different bytes, so that blocks repeat and hashes meet.
    let basis = (0..60_000usize, any::<u64>(), prop_oneof![Just(1u8), Just(2), Just(255)])
        .prop_map(|(len, seed, most)| noise(seed, len).into_iter().map(|b| b % most).collect::<Vec<u8>>());
    (basis, prop::collection::vec(edit, 0..6)).prop_map(|(basis, edits)| {
        let mut content = basis.clone();
        for (at, out, into, seed) in edits {
            let at = at.index(content.len() + 1);
            let end = (at + out).min(content.len());
            content.splice(at..end, noise(seed, into));
        }
        (basis, content)
    })
}

proptest! {
    #[test]
    fn what_is_put_together_is_the_content((basis, content) in edited(), span in 1..40usize) {
        transfer(&basis, &content, span * CHUNK as usize);
    }

    #[test]
    fn a_made_up_signature_leads_to_parts_of_the_right_length(
        size in 0..200_000u64,
        sums in prop::collection::vec((any::<u32>(), any::<[u8; 8]>()), 200),
        few in any::<bool>(),
        content in prop::collection::vec(0..2u8, 0..20_000),
    ) {
        let weak = |n: u32| if few { Rolling::of(&vec![0; 1000]).hash() } else { n };
        let sums = sums[..size.div_ceil(1000) as usize].iter();
        let sums = sums.map(|(n, strong)| Sum { weak: weak(*n), strong: *strong }).collect();
        let signature = Signature { size, block: 1000, sums };
        prop_assert_eq!(signature.check(), Ok(()));
        let parts = Index::new(signature).scan(&content, 0..content.len());
        prop_assert_eq!(parts.iter().map(Part::len).sum::<u64>(), content.len() as u64);
    }
}

#[test]
fn shifted_data_is_found_across_the_borders_of_what_is_asked_for() {
    let basis = noise(1, 3_000_000);
    let block = block_of(3_000_000);
    let content = [b"x", &basis[..]].concat();
    // One byte, wherever the spans end: nothing is lost at their borders.
    for span in [block as usize - 1, 10_000, 499_000, 4_000_000] {
        assert_eq!(transfer(&basis, &content, span / 1000 * 1000), 1, "in spans of {span}");
    }
    let gone = &basis[700_001..];
    assert!(transfer(&basis, gone, 500_000) <= block);
    let mut swapped = basis[1_500_500..].to_vec();
    swapped.extend_from_slice(&basis[..1_500_500]);
    assert!(transfer(&basis, &swapped, 500_000) <= 3 * block);
    assert_eq!(transfer(&basis, &basis, 500_000), 0);
}

#[test]
fn an_edit_costs_a_block_or_two_and_a_stranger_no_more_than_itself() {
    let basis = noise(2, 2_000_000);
    let mut content = basis.clone();
    content.insert(1_234_567, 7);
    assert!(transfer(&basis, &content, 500_000) <= 2 * block_of(2_000_000));
    let stranger = noise(3, 2_000_000);
    assert_eq!(transfer(&basis, &stranger, 4_000_000), 2_000_000);
}

#[test]
fn repeated_blocks_are_copied_in_one_run() {
    let basis = vec![0; 1_000_000];
    let parts = Index::new(Signature::of(&basis)).scan(&basis, 0..basis.len());
    assert_eq!(parts, [Part::Copy { from: 0, len: 1_000_000 }]);
}

#[test]
fn a_signature_made_to_be_slow_is_given_up_on() {
    // Every window has the weak hash of every block, and none the strong one.
    let content = vec![0; 4_000_000];
    let block = 100_000;
    let weak = Rolling::of(&vec![0; block]).hash();
    let sums = (0..1_000u64).map(|n| Sum { weak, strong: n.to_le_bytes() }).collect();
    let signature = Signature { size: 100_000_000, block: block as u64, sums };
    assert_eq!(signature.check(), Ok(()));
    let index = Index::new(signature);
    assert!(index.sorted.len() <= CANDIDATES);
    let mut patience = content.len() * PATIENCE;
    let begin = patience;
    assert_eq!(index.block_at(weak, &content[..block], None, &mut patience), None);
    assert_eq!(begin - patience, block, "each that fails is paid for");
    let parts = index.scan(&content, 0..content.len());
    assert_eq!(new_bytes(&parts), GROUP_BYTES);
}

#[test]
fn signatures_and_recipes_that_nobody_makes_are_refused() {
    let sound = Signature::of(&noise(4, 2_500));
    assert_eq!(sound.check(), Ok(()));
    assert!(Signature { block: 0, ..sound.clone() }.check().is_err());
    assert!(Signature { block: 1_500, ..sound.clone() }.check().is_err());
    assert!(Signature { block: BLOCK_BYTES + CHUNK, ..sound.clone() }.check().is_err());
    assert!(Signature { size: 3_001, ..sound.clone() }.check().is_err());
    assert!(Signature { size: u64::MAX, ..sound.clone() }.check().is_err());
    let recipe = |first, parts| Recipe::check(&[Recipe { first, parts }]);
    let copy = |from, len| Part::Copy { from, len };
    assert_eq!(recipe(0, vec![copy(0, SPAN_BYTES)]), Ok(()));
    assert!(recipe(0, vec![copy(0, SPAN_BYTES + 1)]).is_err());
    assert!(recipe(0, vec![copy(0, 0)]).is_err());
    assert!(recipe(0, vec![copy(u64::MAX, 2)]).is_err());
    assert!(recipe(0, vec![copy(FILE_BYTES, 1)]).is_err());
    assert!(recipe(0, Vec::new()).is_err());
    assert!(recipe(u64::MAX, vec![copy(0, 1)]).is_err());
    let two =
        |first| [Recipe { first: 5, parts: vec![copy(0, 1_500)] }, Recipe { first, parts: vec![copy(0, 1)] }];
    assert_eq!(Recipe::check(&two(7)), Ok(()));
    assert!(Recipe::check(&two(6)).is_err());
}

#[test]
fn the_signature_of_the_largest_file_fits_a_frame() {
    for size in [0, 1, 1_000, 999_999, 1 << 30, 1 << 40, FILE_BYTES] {
        let block = block_of(size);
        let sums = vec![Sum { weak: 0, strong: [0; 8] }; blocks_of(size, block) as usize];
        let signature = Signature { size, block, sums };
        assert_eq!(signature.check(), Ok(()), "{size}");
        let bytes = codec::encode(&signature);
        assert!(bytes.len() < super::super::limits::FRAME_BYTES / 2);
        assert!(codec::decode::<Signature>(&bytes).is_ok());
    }
}
