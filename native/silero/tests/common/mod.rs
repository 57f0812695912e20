//! A model file with made-up weights, and the network computed plainly in f64 on the same weights.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::f64::consts::TAU;

use silero::WINDOW;

/// Repeatable numbers in -0.5..0.5.
pub(crate) struct Noise(pub(crate) u32);

impl Noise {
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 24) as f32 - 0.5
    }

    pub(crate) fn window(&mut self, gain: f32) -> [f32; WINDOW] {
        std::array::from_fn(|_| self.next() * gain)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) name: &'static str,
    pub(crate) dims: Vec<u64>,
    pub(crate) values: Vec<f32>,
}

/// Names, shapes and gains of the weights of the 16 kHz branch, after the Fourier basis.
const WEIGHTS: [(&str, &[u64], f32); 14] = [
    ("encoder.0.reparam_conv.weight", &[128, 129, 3], 0.2),
    ("encoder.0.reparam_conv.bias", &[128], 0.5),
    ("encoder.1.reparam_conv.weight", &[64, 128, 3], 0.2),
    ("encoder.1.reparam_conv.bias", &[64], 0.5),
    ("encoder.2.reparam_conv.weight", &[64, 64, 3], 0.3),
    ("encoder.2.reparam_conv.bias", &[64], 0.5),
    ("encoder.3.reparam_conv.weight", &[128, 64, 3], 0.3),
    ("encoder.3.reparam_conv.bias", &[128], 0.5),
    ("decoder.rnn.weight_ih", &[512, 128], 0.5),
    ("decoder.rnn.weight_hh", &[512, 128], 0.5),
    ("decoder.rnn.bias_ih", &[512], 0.5),
    ("decoder.rnn.bias_hh", &[512], 0.5),
    ("decoder.decoder.2.weight", &[1, 128, 1], 2.0),
    ("decoder.decoder.2.bias", &[1], 0.5),
];

pub(crate) fn tensors(seed: u32) -> Vec<Tensor> {
    let mut noise = Noise(seed);
    let basis = (0..258usize).flat_map(|row| {
        (0..256usize).map(move |n| {
            let window = 0.5 - 0.5 * (TAU * n as f64 / 256.0).cos();
            let angle = TAU * (row % 129 * n % 256) as f64 / 256.0;
            (window * if row < 129 { angle.cos() } else { -angle.sin() }) as f32
        })
    });
    let basis = Tensor {
        name: "stft.forward_basis_buffer",
        dims: vec![258, 1, 256],
        values: basis.collect(),
    };
    let weights = WEIGHTS.iter().map(|(name, dims, gain)| {
        let count = dims.iter().product::<u64>();
        Tensor {
            name,
            dims: dims.to_vec(),
            values: (0..count).map(|_| noise.next() * gain).collect(),
        }
    });
    std::iter::once(basis).chain(weights).collect()
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn message(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fill(&mut out);
    out
}

/// The file as onnx.proto lays it out: an `If` whose branch holds `Constant` nodes.
pub(crate) fn file(tensors: &[Tensor]) -> Vec<u8> {
    let branch = message(|graph| {
        for (index, tensor) in tensors.iter().enumerate() {
            let value = message(|out| {
                if index % 2 == 0 {
                    bytes(
                        out,
                        1,
                        &message(|dims| tensor.dims.iter().for_each(|dim| varint(dims, *dim))),
                    );
                } else {
                    tensor.dims.iter().for_each(|dim| number(out, 1, *dim));
                }
                number(out, 2, 1);
                bytes(out, 8, tensor.name.as_bytes());
                let raw: Vec<u8> = tensor
                    .values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                bytes(out, 9, &raw);
            });
            let attribute = message(|out| {
                bytes(out, 1, b"value");
                bytes(out, 5, &value);
                number(out, 20, 4);
            });
            bytes(
                graph,
                1,
                &message(|node| {
                    bytes(node, 4, b"Constant");
                    bytes(node, 5, &attribute);
                }),
            );
        }
    });
    let attribute = |name: &[u8], graph: &[u8]| {
        message(|out| {
            bytes(out, 1, name);
            bytes(out, 6, graph);
        })
    };
    let choice = message(|node| {
        bytes(node, 4, b"If");
        bytes(node, 5, &attribute(b"else_branch", b""));
        bytes(node, 5, &attribute(b"then_branch", &branch));
    });
    message(|model| {
        number(model, 1, 8);
        bytes(
            model,
            7,
            &message(|graph| {
                bytes(graph, 1, &message(|node| bytes(node, 4, b"Equal")));
                bytes(graph, 1, &choice);
            }),
        );
    })
}

/// The network, written for clarity.
pub(crate) struct Reference {
    tensors: Vec<Tensor>,
    context: Vec<f64>,
    hidden: Vec<f64>,
    cell: Vec<f64>,
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Reference {
    pub(crate) fn new(tensors: &[Tensor]) -> Self {
        let zeros = |count| vec![0.0; count];
        Self {
            tensors: tensors.to_vec(),
            context: zeros(64),
            hidden: zeros(128),
            cell: zeros(128),
        }
    }

    fn weight(&self, index: usize, at: usize) -> f64 {
        f64::from(self.tensors[index].values[at])
    }

    /// Width 3, padding 1, rectified; `x[time][channel]`.
    fn convolution(&self, index: usize, stride: usize, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (outputs, inputs) = (
            self.tensors[index].dims[0] as usize,
            self.tensors[index].dims[1] as usize,
        );
        let output = |time: usize, output: usize| {
            let mut sum = self.weight(index + 1, output);
            for tap in 0..3 {
                let Some(row) = (time * stride + tap).checked_sub(1).and_then(|time| x.get(time)) else {
                    continue;
                };
                for (input, value) in row.iter().enumerate() {
                    sum += self.weight(index, (output * inputs + input) * 3 + tap) * value;
                }
            }
            sum.max(0.0)
        };
        let times = (x.len() - 1) / stride + 1;
        (0..times)
            .map(|time| (0..outputs).map(|channel| output(time, channel)).collect())
            .collect()
    }

    fn magnitudes(&self, samples: &[f64]) -> Vec<Vec<f64>> {
        let filter = |frame: usize, row: usize| -> f64 {
            let frame = &samples[frame * 128..][..256];
            frame
                .iter()
                .enumerate()
                .map(|(n, sample)| sample * self.weight(0, row * 256 + n))
                .sum()
        };
        (0..4)
            .map(|frame| {
                (0..129)
                    .map(|bin| filter(frame, bin).hypot(filter(frame, bin + 129)))
                    .collect()
            })
            .collect()
    }

    pub(crate) fn infer(&mut self, window: &[f32; WINDOW]) -> f64 {
        let mut samples = self.context.clone();
        samples.extend(window.iter().copied().map(f64::from));
        self.context = samples[WINDOW..].to_vec();
        samples.extend((0..64).map(|n| samples[574 - n]).collect::<Vec<_>>());
        let mut x = self.magnitudes(&samples);
        for (index, stride) in [(1, 1), (3, 2), (5, 2), (7, 1)] {
            x = self.convolution(index, stride, &x);
        }
        let gate = |row: usize| -> f64 {
            let inputs: f64 = (0..128).map(|i| self.weight(9, row * 128 + i) * x[0][i]).sum();
            let memory: f64 = (0..128)
                .map(|i| self.weight(10, row * 128 + i) * self.hidden[i])
                .sum();
            inputs + memory + self.weight(11, row) + self.weight(12, row)
        };
        let gates: Vec<f64> = (0..512).map(gate).collect();
        for unit in 0..128 {
            let admit = sigmoid(gates[unit]) * gates[256 + unit].tanh();
            self.cell[unit] = sigmoid(gates[128 + unit]) * self.cell[unit] + admit;
            self.hidden[unit] = sigmoid(gates[384 + unit]) * self.cell[unit].tanh();
        }
        let sum: f64 = (0..128)
            .map(|unit| self.weight(13, unit) * self.hidden[unit].max(0.0))
            .sum();
        sigmoid(sum + self.weight(14, 0))
    }
}
