/** Tags images through Triton's gRPC service; ram.d.ts documents what is exported. */
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTO = fileURLToPath(new URL('../proto/inference.proto', import.meta.url));
const { inference } = /** @type {any} */ (
  grpc.loadPackageDefinition(loadSync(PROTO, { keepCase: true, longs: Number })));

// UNAVAILABLE (a full queue, no connection) is tried again, five times at most; throttling stops
// that for all calls of the channel while more than one in ten fails.
const SERVICE_CONFIG = JSON.stringify({
  methodConfig: [{
    name: [{ service: 'inference.GRPCInferenceService', method: 'ModelInfer' }],
    retryPolicy: {
      maxAttempts: 5, initialBackoff: '0.2s', maxBackoff: '2s', backoffMultiplier: 2,
      retryableStatusCodes: ['UNAVAILABLE'],
    },
  }],
  retryThrottling: { maxTokens: 10, tokenRatio: 0.1 },
});
const CHANNEL = {
  'grpc.service_config': SERVICE_CONFIG,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 2000,
  'grpc.max_receive_message_length': -1,
  // A request that does not fit into these is not tried again: the defaults are 1 and 16 MiB.
  'grpc.per_rpc_retry_buffer_size': 2 ** 31 - 1,
  'grpc.retry_buffer_size': 2 ** 31 - 1,
};

export class RamClient {
  constructor(address = 'localhost:8001', { timeout = 60, credentials, headers = {} } = {}) {
    this.timeout = timeout;
    this.metadata = new grpc.Metadata();
    for (const [name, value] of Object.entries(headers)) this.metadata.set(name, value);
    this.stub = new inference.GRPCInferenceService(address, credentials ?? grpc.credentials.createInsecure(), CHANNEL);
  }

  async tag(image, options = {}) {
    return (await this.tagBatch([image], options))[0];
  }

  async tagBatch(images, { threshold, topK, exclude, labels } = {}) {
    const rows = images.length;
    const perImage = (value) => Array(rows).fill(value).flat();
    const inputs = [];
    const add = (name, datatype, shape, field, values) =>
      inputs.push({ name, datatype, shape, contents: { [field]: values } });
    add('image', 'BYTES', [rows, 1], 'bytes_contents', images);
    if (threshold !== undefined) add('threshold', 'FP32', [rows, 1], 'fp32_contents', perImage(threshold));
    if (topK !== undefined) add('top_k', 'INT32', [rows, 1], 'int_contents', perImage(topK));
    if (exclude?.length) add('exclude', 'BYTES', [rows, exclude.length], 'bytes_contents', perImage(exclude.map(utf8)));
    if (labels) add('labels', 'BYTES', [labels.length], 'bytes_contents', labels.map(utf8));
    const wanted = ['tags', 'tags_zh', 'scores', 'tag_ids', 'count', ...(labels ? ['known'] : [])];
    const request = { model_name: labels ? 'ram_open' : 'ram', inputs, outputs: wanted.map((name) => ({ name })) };
    const deadline = new Date(Date.now() + 1000 * this.timeout);
    const response = await new Promise((resolve, reject) => this.stub.ModelInfer(
      request, this.metadata, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer))));
    return readTags(response, rows);
  }

  close() {
    this.stub.close();
  }
}

const utf8 = (text) => Buffer.from(text);

/** The elements of a BYTES tensor: a length of 4 bytes, little-endian, before each. */
function readStrings(buffer) {
  const texts = [];
  for (let at = 0, end; at < buffer.length; at = end) {
    end = at + 4 + buffer.readUInt32LE(at);
    texts.push(buffer.toString('utf8', at + 4, end));
  }
  return texts;
}

/** Rows are padded to the longest: `count` of each are tags. Outputs come in an order of the server's. */
function readTags({ outputs, raw_output_contents: buffers }, rows) {
  const raw = Object.fromEntries(outputs.map(({ name }, index) => [name, buffers[index]]));
  const [names, namesZh] = [readStrings(raw.tags), readStrings(raw.tags_zh)];
  const width = outputs.find(({ name }) => name === 'tags').shape[1];
  return Array.from({ length: rows }, (_, row) =>
    Array.from({ length: raw.count.readInt32LE(4 * row) }, (_, column) => {
      const at = row * width + column;
      return {
        name: names[at], nameZh: namesZh[at], score: raw.scores.readFloatLE(4 * at),
        id: raw.tag_ids.readInt32LE(4 * at), known: raw.known ? raw.known[at] === 1 : true,
      };
    }));
}
