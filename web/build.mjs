// Bundles uPlot for the page: one module, its style sheet and its licence, all shipped in the Python package.
// The page's own modules are served as they are written.
import { build } from "esbuild";
import { copyFile, readFile, rm } from "node:fs/promises";

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
