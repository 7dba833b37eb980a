#!/usr/bin/env node
/** Prints the tags of images: file, score, English name, Chinese name, with tabs between them. */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import grpc from '@grpc/grpc-js';
import { RamClient } from './ram.js';

function readCommandLine() {
  const { values, positionals: files } = parseArgs({
    allowPositionals: true,
    options: {
      server: { type: 'string' }, timeout: { type: 'string' }, batch: { type: 'string' },
      tls: { type: 'boolean' }, 'tls-ca': { type: 'string' }, threshold: { type: 'string' }, 'top-k': { type: 'string' },
      exclude: { type: 'string', multiple: true }, label: { type: 'string', multiple: true },
      header: { type: 'string', multiple: true },
    },
  });
  const number = (/** @type {'timeout' | 'batch' | 'threshold' | 'top-k'} */ option) => {
    const text = values[option];
    if (text === undefined) return undefined;
    if (!text.trim() || Number.isNaN(Number(text))) throw new Error(`--${option}: '${text}' is not a number`);
    return Number(text);
  };
  const batch = number('batch') ?? 32;
  if (!(batch >= 1)) throw new Error('--batch: must be 1 or more');
  if (!files.length) throw new Error('no image is given');
  const trusted = values['tls-ca'] ? readFileSync(values['tls-ca']) : null; // null: grpc's own list
  const credentials = values.tls || trusted ? grpc.credentials.createSsl(trusted) : undefined;
  const headers = Object.fromEntries((values.header ?? []).map((text) => {
    const [, name, value] = text.match(/^([^:]+):\s*(.*)$/) ?? [];
    if (!name) throw new Error(`--header: '${text}' is not NAME:VALUE`);
    return [name, value];
  }));
  const client = new RamClient(values.server, { timeout: number('timeout'), credentials, headers });
  const { exclude, label: labels } = values;
  const options = { threshold: number('threshold'), topK: number('top-k'), exclude, labels };
  return { client, options, batch, files };
}

async function main() {
  const { client, options, batch, files } = readCommandLine();
  for (let start = 0; start < files.length; start += batch) {
    const some = files.slice(start, start + batch);
    try {
      const answers = await client.tagBatch(some.map((file) => readFileSync(file)), options);
      for (const [row, tags] of answers.entries()) {
        for (const { score, name, nameZh } of tags) console.log([some[row], score.toFixed(6), name, nameZh].join('\t'));
      }
    } catch (/** @type {any} */ error) { // of the server, or of a file
      console.error(`tag: ${error.details ? `${grpc.status[error.code]}: ${error.details}` : error.message}`);
      process.exitCode = 1;
    }
  }
  client.close();
}

main().catch((error) => {
  console.error(`tag: ${error.message}`);
  process.exitCode = 2;
});
