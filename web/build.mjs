// Builds what browsers are served: uPlot for the live page, and the phone. Both are committed and shipped in the Python
// package. `node build.mjs tests [FOLDER]` bundles the phone's tests for Node's test runner instead.
import { build } from "esbuild";
import { copyFile, readFile, readdir, rm } from "node:fs/promises";

async function uplot() {
  const vendor = "../server/dashboard/static/vendor";
  const { version, license } = JSON.parse(await readFile("node_modules/uplot/package.json", "utf8"));
  const banner = `/* uPlot ${version}, ${license} licence: see uplot.LICENSE */`;
  await rm(vendor, { recursive: true, force: true });
  for (const [entry, out] of [
    ["node_modules/uplot/dist/uPlot.esm.js", "uplot.js"],
    ["node_modules/uplot/dist/uPlot.min.css", "uplot.css"],
  ]) {
    await build({
      entryPoints: [entry],
      outfile: `${vendor}/${out}`,
      bundle: true,
      minify: true,
      format: "esm",
      target: "es2022",
      legalComments: "none",
      banner: { js: banner, css: banner },
    });
  }
  await copyFile("node_modules/uplot/LICENSE", `${vendor}/uplot.LICENSE`);
}

async function tests(outdir) {
  const files = (await readdir("phone/tests")).filter((name) => name.endsWith(".ts"));
  await build({
    entryPoints: files.map((name) => `phone/tests/${name}`),
    outdir,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    sourcemap: "inline",
  });
}

if (process.argv[2] === "tests") {
  await tests(process.argv[3] ?? "build");
} else {
  await uplot();
}
