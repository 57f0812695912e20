//! Dense products `y = W x + b` for many columns `x` at once: the one hot loop of the model.
//!
//! Weights are packed in panels of 16 outputs, `[panel][input][16]`, so that a tile of six columns and one
//! panel lives in the registers of AVX2 (12 accumulators) and every weight read serves six columns. With one
//! column to do, four panels run side by side instead, else the chain of dependent additions would be the
//! limit. The instruction set is chosen at run time by `pulp`.

use std::ops::Range;

use pulp::Simd;

/// Outputs per panel.
const PANEL: usize = 16;
/// Columns per full tile.
const TILE: usize = 6;

/// Where column `c` begins: item `c / per_item`, step `c % per_item`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) start: usize,
    pub(crate) per_item: usize,
    pub(crate) item_stride: usize,
    pub(crate) step_stride: usize,
}

impl Layout {
    /// One column per item.
    pub(crate) fn single(start: usize, item_stride: usize) -> Self {
        Self {
            start,
            per_item: 1,
            item_stride,
            step_stride: 0,
        }
    }

    #[inline(always)]
    fn at(self, column: usize) -> usize {
        self.start + column / self.per_item * self.item_stride + column % self.per_item * self.step_stride
    }
}

/// The packed weights of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    inputs: usize,
    panels: Vec<f32>,
    bias: Vec<f32>,
    relu: bool,
}

impl Matrix {
    /// `weight(output, input)`; the number of outputs is that of the biases, a multiple of 64.
    pub(crate) fn pack(
        inputs: usize,
        bias: Vec<f32>,
        relu: bool,
        weight: impl Fn(usize, usize) -> f32,
    ) -> Self {
        assert!(
            bias.len().is_multiple_of(4 * PANEL),
            "outputs come in groups of four panels"
        );
        let mut panels = Vec::with_capacity(inputs * bias.len());
        for first in (0..bias.len()).step_by(PANEL) {
            for input in 0..inputs {
                panels.extend((first..first + PANEL).map(|output| weight(output, input)));
            }
        }
        Self {
            inputs,
            panels,
            bias,
            relu,
        }
    }

    /// How many inputs a column has.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Multiply `columns` columns of `x` and write each result to its place in `y`.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(
        &self,
        simd: S,
        columns: usize,
        from: (&[f32], Layout),
        to: (&mut [f32], Layout),
    ) {
        self.apply_part(simd, columns, 0..self.inputs, from, to);
    }

    /// The same with some of the inputs alone, the others being zero; a column of `x` is these inputs.
    #[inline(always)]
    pub(crate) fn apply_part<S: Simd>(
        &self,
        simd: S,
        columns: usize,
        inputs: Range<usize>,
        (x, from): (&[f32], Layout),
        (y, to): (&mut [f32], Layout),
    ) {
        let mut product = Product {
            simd,
            matrix: self,
            inputs,
            x,
            from,
            y,
            to,
        };
        match S::F32_LANES {
            16 => product.run::<1>(columns),
            8 => product.run::<2>(columns),
            4 => product.run::<4>(columns),
            2 => product.run::<8>(columns),
            _ => product.run::<16>(columns),
        }
    }
}

struct Product<'a, S> {
    simd: S,
    matrix: &'a Matrix,
    inputs: Range<usize>,
    x: &'a [f32],
    from: Layout,
    y: &'a mut [f32],
    to: Layout,
}

impl<S: Simd> Product<'_, S> {
    /// `V` vectors make a panel.
    #[inline(always)]
    fn run<const V: usize>(&mut self, columns: usize) {
        let full = columns / TILE * TILE;
        if full > 0 {
            for panel in 0..self.matrix.bias.len() / PANEL {
                for column in (0..full).step_by(TILE) {
                    self.tile::<V, 1, TILE>(panel, column);
                }
            }
        }
        match columns - full {
            1 => self.rest::<V, 4, 1>(full),
            2 => self.rest::<V, 2, 2>(full),
            3 => self.rest::<V, 2, 3>(full),
            4 => self.rest::<V, 1, 4>(full),
            5 => self.rest::<V, 1, 5>(full),
            _ => {}
        }
    }

    #[inline(always)]
    fn rest<const V: usize, const P: usize, const N: usize>(&mut self, column: usize) {
        for panel in (0..self.matrix.bias.len() / PANEL).step_by(P) {
            self.tile::<V, P, N>(panel, column);
        }
    }

    /// `P` panels from `panel` on, times `N` columns from `column` on.
    #[inline(always)]
    fn tile<const V: usize, const P: usize, const N: usize>(&mut self, panel: usize, column: usize) {
        let (simd, inputs) = (self.simd, self.inputs.len());
        let weights: [&[[S::f32s; V]]; P] = std::array::from_fn(|p| {
            let first = (panel + p) * self.matrix.inputs + self.inputs.start;
            let panel = &self.matrix.panels[first * PANEL..][..inputs * PANEL];
            &S::as_simd_f32s(panel).0.as_chunks::<V>().0[..inputs]
        });
        let columns: [&[f32]; N] = std::array::from_fn(|n| &self.x[self.from.at(column + n)..][..inputs]);
        let bias: [[S::f32s; V]; P] = std::array::from_fn(|p| {
            let (bias, _) = S::as_simd_f32s(&self.matrix.bias[(panel + p) * PANEL..][..PANEL]);
            std::array::from_fn(|v| bias[v])
        });
        let mut sums = [bias; N];
        for input in 0..inputs {
            let row: [[S::f32s; V]; P] = std::array::from_fn(|p| weights[p][input]);
            for (sums, column) in sums.iter_mut().zip(&columns) {
                let value = simd.splat_f32s(column[input]);
                for (sums, row) in sums.iter_mut().zip(&row) {
                    for (sum, weights) in sums.iter_mut().zip(row) {
                        *sum = simd.mul_add_e_f32s(*weights, value, *sum);
                    }
                }
            }
        }
        let zero = simd.splat_f32s(0.0);
        for (n, sums) in sums.iter().enumerate() {
            let y = &mut self.y[self.to.at(column + n) + panel * PANEL..][..P * PANEL];
            for (y, sum) in S::as_mut_simd_f32s(y).0.iter_mut().zip(sums.as_flattened()) {
                *y = if self.matrix.relu {
                    simd.max_f32s(*sum, zero)
                } else {
                    *sum
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, Scalar, WithSimd};

    use super::*;

    const INPUTS: usize = 37;
    const OUTPUTS: usize = 64;

    fn weight(output: usize, input: usize) -> f32 {
        ((output * 31 + input * 17) % 23) as f32 / 23.0 - 0.5
    }

    struct Apply<'a>(&'a Matrix, usize, &'a [f32], &'a mut [f32]);

    impl WithSimd for Apply<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            // Two overlapping columns per item.
            let from = Layout {
                start: 1,
                per_item: 2,
                item_stride: 2 * INPUTS,
                step_stride: 5,
            };
            self.0
                .apply(simd, self.1, (self.2, from), (self.3, Layout::single(0, OUTPUTS)));
        }
    }

    #[test]
    fn any_number_of_columns_on_this_processor_and_on_the_oldest() {
        let x: Vec<f32> = (0..20 * 2 * INPUTS)
            .map(|n| (n % 29) as f32 / 29.0 - 0.4)
            .collect();
        let bias = |output: usize| output as f32 / 64.0 - 0.3;
        for relu in [false, true] {
            let matrix = Matrix::pack(INPUTS, (0..OUTPUTS).map(bias).collect(), relu, weight);
            for columns in 0..=20 {
                let (mut native, mut scalar) = (vec![f32::NAN; 20 * OUTPUTS], vec![f32::NAN; 20 * OUTPUTS]);
                Arch::new().dispatch(Apply(&matrix, columns, &x, &mut native));
                Apply(&matrix, columns, &x, &mut scalar).with_simd(Scalar);
                for (at, (native, scalar)) in native.iter().zip(&scalar).enumerate() {
                    let (column, output) = (at / OUTPUTS, at % OUTPUTS);
                    if column >= columns {
                        assert!(
                            native.is_nan() && scalar.is_nan(),
                            "nothing beyond the last column"
                        );
                        continue;
                    }
                    let x = &x[1 + column / 2 * 2 * INPUTS + column % 2 * 5..][..INPUTS];
                    let sum: f32 = x
                        .iter()
                        .enumerate()
                        .map(|(input, x)| x * weight(output, input))
                        .sum();
                    let exact = sum + bias(output);
                    let exact = if relu { exact.max(0.0) } else { exact };
                    assert!(
                        (native - exact).abs() < 1e-5 && (scalar - exact).abs() < 1e-5,
                        "{columns} {at}"
                    );
                }
            }
        }
    }
}
