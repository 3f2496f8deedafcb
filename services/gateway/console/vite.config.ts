import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The gateway serves what is built here below /console/; the build is the same byte for byte on every machine.
export default defineConfig({
  base: "/console/",
  plugins: [react()],
  worker: { format: "es" },
  build: { target: "es2022", outDir: "../built_console", emptyOutDir: true, sourcemap: false, modulePreload: { polyfill: false }, license: { fileName: "licenses.md" } },
});
