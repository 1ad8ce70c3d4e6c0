// Builds what browsers are served: uPlot for the live page, and the phone. Both are committed and shipped in the Python
// package. `node build.mjs tests [FOLDER]` bundles the phone's tests for Node's test runner instead.
import { build } from "esbuild";
import { copyFile, mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";

// What is built comes into the package file by file: pip, or a server that runs, finds every one of them at any moment.
async function built(name, served, into) {
  const folder = `dist/${name}`;
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await into(folder);
  await mkdir(served, { recursive: true });
  const files = await readdir(folder);
  for (const file of files) await rename(`${folder}/${file}`, `${served}/${file}`);
  for (const file of await readdir(served)) if (!files.includes(file)) await rm(`${served}/${file}`, { recursive: true });
}

async function uplot(vendor) {
  const { version, license } = JSON.parse(await readFile("node_modules/uplot/package.json", "utf8"));
  const banner = `/* uPlot ${version}, ${license} licence: see uplot.LICENSE */`;
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

async function phone(out) {
  const versions = await Promise.all(
    ["@msgpack/msgpack", "@noble/hashes"].map(async (name) => {
      const { version, license } = JSON.parse(await readFile(`node_modules/${name}/package.json`, "utf8"));
      return `${name} ${version}, ${license} licence`;
    }),
  );
  await build({
    entryPoints: { page: "phone/page/main.ts", worker: "phone/page/worker.ts" },
    outdir: out,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    legalComments: "none",
    banner: { js: `/* Built from web/phone; has ${versions.join(", ")}: see LICENSES */` },
  });
  for (const name of ["index.html", "page.css", "icon.svg"]) await copyFile(`phone/page/${name}`, `${out}/${name}`);
  const licenses = ["@msgpack/msgpack", "@noble/hashes"].map((name) => readFile(`node_modules/${name}/LICENSE`, "utf8"));
  await writeFile(`${out}/LICENSES`, (await Promise.all(licenses)).join("\n"));
}

if (process.argv[2] === "tests") {
  await tests(process.argv[3] ?? "build");
} else {
  await built("vendor", "../server/dashboard/static/vendor", uplot);
  await built("phone", "../server/phone_page/static", phone);
}
