//! Any octets at all, as the fuzz targets get them, from proptest: quick, with the stable compiler, anew each time that
//! its seed changes.

use invariants::Target;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const CASES: u32 = 64;
const SEED: [u8; 32] = *b"any octets at all, and no others";

#[test]
fn any_octets_keep_what_the_targets_promise() {
    for target in Target::ALL {
        let config = Config {
            cases: CASES,
            failure_persistence: None,
            ..Config::default()
        };
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &SEED);
        let octets = prop::collection::vec(prop_oneof![2 => any::<u8>(), 1 => 0..4_u8], 0..600);
        let outcome = TestRunner::new_with_rng(config, random).run(&octets, |octets| {
            target.run(&octets);
            Ok(())
        });
        assert!(outcome.is_ok(), "{}: {outcome:?}", target.name());
    }
}
