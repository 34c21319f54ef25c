package peer;

import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings;
import ca.uhn.fhir.jpa.api.dao.IFhirSystemDao;
import ca.uhn.fhir.jpa.provider.IJpaSystemProvider;
import ca.uhn.fhir.jpa.provider.JpaCapabilityStatementProvider;
import ca.uhn.fhir.jpa.search.DatabaseBackedPagingProvider;
import ca.uhn.fhir.rest.server.RestfulServer;
import ca.uhn.fhir.rest.server.provider.ResourceProviderFactory;
import ca.uhn.fhir.rest.server.util.ISearchParamRegistry;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;

/** Serves FHIR R4 at {@code http://127.0.0.1:PORT/fhir} until it gets SIGTERM. Argument: the port. */
public final class Peer {
    private Peer() {}

    public static void main(String[] args) {
        // Before any logger exists. The log goes to standard error.
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "warn");
        System.setProperty("org.slf4j.simpleLogger.showDateTime", "true");
        System.setProperty("org.slf4j.simpleLogger.dateTimeFormat", "HH:mm:ss.SSS");
        // Says when a subscription was activated and registered.
        System.setProperty("org.slf4j.simpleLogger.log.ca.uhn.fhir.jpa.subscription", "info");
        try {
            serve(Integer.parseInt(args[0]));
        } catch (Exception e) {
            // A taken port, for one. HAPI's own threads would keep the process alive.
            e.printStackTrace();
            System.exit(1);
        }
    }

    private static void serve(int port) throws Exception {
        var context = new AnnotationConfigApplicationContext(PeerConfig.class);
        var holder = new ServletHolder(restfulServer(context));
        // At start, not at the first request: a port that answers is then a server that is ready.
        holder.setInitOrder(1);
        var handler = new ServletContextHandler();
        handler.addServlet(holder, "/fhir/*");

        var server = new Server();
        var connector = new ServerConnector(server);
        connector.setHost("127.0.0.1");
        connector.setPort(port);
        server.addConnector(connector);
        server.setHandler(handler);

        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                server.stop();
            } catch (Exception e) {
                e.printStackTrace();
            }
            context.close();
        }));
        server.start();
    }

    private static RestfulServer restfulServer(AnnotationConfigApplicationContext context) {
        var server = new RestfulServer(context.getBean(FhirContext.class));
        server.registerProviders(context.getBean(ResourceProviderFactory.class).createProviders());
        server.registerProvider(context.getBean(IJpaSystemProvider.class));
        // Without a paging provider the server ignores _count and answers no "next" links.
        server.setPagingProvider(context.getBean(DatabaseBackedPagingProvider.class));
        server.setServerConformanceProvider(new JpaCapabilityStatementProvider(
                server,
                context.getBean(IFhirSystemDao.class),
                context.getBean(JpaStorageSettings.class),
                context.getBean(ISearchParamRegistry.class),
                context.getBean(IValidationSupport.class)));
        return server;
    }
}
