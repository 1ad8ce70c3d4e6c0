/** The one product that forward and backward passes are made of. Sums are doubles, rounded once to float32. */

/** Return A·Bᵀ, (m, n), of A (m, k) and B (n, k), both row by row. */
export function product(a: Float32Array, b: Float32Array, m: number, n: number, k: number): Float32Array {
  const c = new Float32Array(m * n);
  let i = 0;
  // Two rows by four at a time: each number that is loaded is used more than once.
  for (; i + 1 < m; i += 2) {
    const a0 = i * k;
    const a1 = a0 + k;
    let j = 0;
    for (; j + 3 < n; j += 4) {
      const b0 = j * k;
      const b1 = b0 + k;
      const b2 = b1 + k;
      const b3 = b2 + k;
      let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
      for (let t = 0; t < k; t++) {
        const x = a[a0 + t];
        const y = a[a1 + t];
        const p = b[b0 + t];
        const q = b[b1 + t];
        const r = b[b2 + t];
        const s = b[b3 + t];
        s00 += x * p; s01 += x * q; s02 += x * r; s03 += x * s;
        s10 += y * p; s11 += y * q; s12 += y * r; s13 += y * s;
      }
      const at = i * n + j;
      c[at] = s00; c[at + 1] = s01; c[at + 2] = s02; c[at + 3] = s03;
      c[at + n] = s10; c[at + n + 1] = s11; c[at + n + 2] = s12; c[at + n + 3] = s13;
    }
    for (; j < n; j++) {
      c[i * n + j] = dot(a, a0, b, j * k, k);
      c[(i + 1) * n + j] = dot(a, a1, b, j * k, k);
    }
  }
  for (; i < m; i++) for (let j = 0; j < n; j++) c[i * n + j] = dot(a, i * k, b, j * k, k);
  return c;
}

function dot(a: Float32Array, at: number, b: Float32Array, bt: number, k: number): number {
  let sum = 0;
  for (let t = 0; t < k; t++) sum += a[at + t] * b[bt + t];
  return sum;
}

/** Return Aᵀ, (columns, rows). */
export function transposed(a: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(a.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = a[i * columns + j];
  return out;
}
