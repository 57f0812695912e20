//! The kernel against the network computed plainly, and what a bad file does.

mod common;

use common::{Noise, Reference, Tensor, file, tensors};
use proptest::prelude::*;
use silero::{Model, ModelError, Scratch, State, WINDOW};

fn model(tensors: &[Tensor]) -> Model {
    Model::from_onnx(&file(tensors)).expect("a complete file")
}

#[test]
fn equals_the_plain_network_window_by_window() {
    let tensors = tensors(1);
    let model = model(&tensors);
    let mut reference = Reference::new(&tensors);
    let (mut scratch, mut state, mut noise) = (Scratch::new(), State::new(), Noise(7));
    let mut seen = Vec::new();
    for gain in [0.0, 1.0, 0.1, 2.0, 0.001, 1.0, 0.5, 0.0, 0.0, 1.0, 0.3, 2.0] {
        let window = noise.window(gain);
        let probability = model.infer(&mut scratch, &mut state, &window);
        assert!(
            (f64::from(probability) - reference.infer(&window)).abs() < 2e-6,
            "gain {gain}"
        );
        seen.push(probability);
    }
    let spread = seen.iter().copied().fold(0.0f32, f32::max) - seen.iter().copied().fold(1.0f32, f32::min);
    assert!(spread > 0.05, "the windows must matter to the result: {seen:?}");
}

#[test]
fn a_batch_of_any_size_equals_one_by_one() {
    let model = model(&tensors(2));
    let mut noise = Noise(3);
    let mut scratch = Scratch::new();
    for size in (0..=20).chain([31, 32, 33, 50]) {
        let mut alone = vec![State::new(); size];
        for round in 0..3 {
            let windows: Vec<[f32; WINDOW]> = (0..size).map(|_| noise.window(1.0)).collect();
            let mut together = alone.clone();
            let expected: Vec<f32> = alone
                .iter_mut()
                .zip(&windows)
                .map(|(s, w)| model.infer(&mut Scratch::new(), s, w))
                .collect();
            let mut out = vec![0.0; size];
            let mut work: Vec<_> = together.iter_mut().zip(&windows).collect();
            model.infer_batch(&mut scratch, &mut work, &mut out);
            for (a, b) in expected.iter().zip(&out) {
                assert!((a - b).abs() < 1e-6, "size {size} round {round}: {a} {b}");
            }
            assert_eq!(alone, together, "size {size} round {round}");
        }
    }
}

#[test]
fn skipping_moves_only_the_context() {
    let model = model(&tensors(4));
    let (mut scratch, mut noise) = (Scratch::new(), Noise(5));
    let (first, skipped, last) = (noise.window(1.0), noise.window(1.0), noise.window(1.0));
    let mut state = State::new();
    model.infer(&mut scratch, &mut state, &first);
    let mut stretched = skipped;
    stretched[..WINDOW - 64].fill(0.0);
    let mut same = state.clone();
    state.skip(&skipped);
    same.skip(&stretched);
    assert_eq!(state, same, "only the last 64 samples count");
    let mut without = state.clone();
    without.skip(&first);
    let heard = model.infer(&mut scratch, &mut state, &last);
    assert!(
        (heard - model.infer(&mut scratch, &mut without, &last)).abs() > 1e-7,
        "the context counts"
    );
}

#[test]
fn each_missing_or_misshapen_tensor_is_named() {
    let good = tensors(1);
    for index in 0..good.len() {
        let name = good[index].name;
        let mut missing = good.clone();
        missing.remove(index);
        assert_eq!(
            Model::from_onnx(&file(&missing)).unwrap_err(),
            ModelError::MissingTensor { name }
        );
        let mut misshapen = good.clone();
        misshapen[index].dims[0] += 1;
        assert_eq!(
            Model::from_onnx(&file(&misshapen)).unwrap_err(),
            ModelError::Shape { name }
        );
        let mut short = good.clone();
        short[index].values.pop();
        assert_eq!(
            Model::from_onnx(&file(&short)).unwrap_err(),
            ModelError::Shape { name }
        );
        let mut wild = good.clone();
        wild[index].values[0] = f32::NAN;
        assert_eq!(
            Model::from_onnx(&file(&wild)).unwrap_err(),
            ModelError::NotFinite { name }
        );
    }
}

#[test]
fn a_first_layer_that_is_not_fourier_is_refused() {
    let mut tensors = tensors(1);
    tensors[0].values[256 * 40 + 17] += 1e-3;
    assert_eq!(
        Model::from_onnx(&file(&tensors)).unwrap_err(),
        ModelError::NotFourier
    );
}

#[test]
fn files_of_another_kind_are_refused() {
    assert_eq!(Model::from_onnx(b"").unwrap_err(), ModelError::NoGraph);
    assert_eq!(
        Model::from_onnx(b"RIFF....WAVEfmt ").unwrap_err(),
        ModelError::Truncated
    );
    assert_eq!(Model::from_onnx(&[0xff; 32]).unwrap_err(), ModelError::Malformed);
    // ModelProto with an empty graph.
    assert_eq!(Model::from_onnx(&[0x3a, 0x00]).unwrap_err(), ModelError::NoBranch);
}

#[test]
fn every_kind_of_cut_is_an_error() {
    let whole = file(&tensors(1));
    for cut in (0..64)
        .chain((64..whole.len()).step_by(whole.len() / 200))
        .chain([whole.len() - 1])
    {
        assert!(Model::from_onnx(&whole[..cut]).is_err(), "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Model::from_onnx(&bytes).is_err());
    }

    /// Damage to the structure in front of the first tensor's data.
    #[test]
    fn damaged_headers_never_panic(at in 0usize..120, value in any::<u8>(), cut in 0usize..200) {
        let mut bytes = file(&[Tensor { name: "stft.forward_basis_buffer", dims: vec![2], values: vec![1.0; 2] }]);
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        prop_assert!(Model::from_onnx(&bytes).is_err());
    }
}
